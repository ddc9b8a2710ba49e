//! Lists of images: one a line, the image set of oc-mirror, or what skopeo sync takes.

use yaml_rust2::{Yaml, YamlLoader};

use crate::error::{Error, Result};
use crate::reference::Reference;

/// Most images of a list.
const MAX_IMAGES: usize = 100_000;

/// The images that a file names; `what` is its name.
///
/// # Errors
/// Usage, naming what cannot be understood: nothing in a list is passed over.
pub fn images(bytes: &[u8], what: &str) -> Result<Vec<Reference>> {
    let text = std::str::from_utf8(bytes).map_err(|e| Error::usage(format!("{what}: not UTF-8: {e}")))?;
    let names = match is_yaml(text) {
        true => of_yaml(text, what)?,
        false => lines(text).map(str::to_owned).collect(),
    };
    if names.len() > MAX_IMAGES {
        return Err(Error::usage(format!("{what}: more than {MAX_IMAGES} images")));
    }
    let parse = |name: &String| name.parse::<Reference>().map_err(|e| e.context(what));
    names.iter().map(parse).collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let plain = |line: &str| !line.is_empty() && !line.starts_with('#');
    text.lines().map(str::trim).filter(move |line| plain(line))
}

/// No name of an image ends with a colon, or has one before a space.
fn is_yaml(text: &str) -> bool {
    lines(text).any(|line| line.ends_with(':') || line.contains(": "))
}

fn of_yaml(text: &str, what: &str) -> Result<Vec<String>> {
    let documents = YamlLoader::load_from_str(text)
        .map_err(|e| Error::usage(format!("{what}: not a list of images: {e}")))?;
    let mut names = Vec::new();
    for document in &documents {
        match document["kind"].as_str() {
            Some("ImageSetConfiguration") => image_set(document, what, &mut names)?,
            Some(kind) => return Err(odd(what, &format!("kind: {kind}"))),
            None => sync(document, what, &mut names)?,
        }
    }
    Ok(names)
}

/// `mirror: additionalImages: - name: REF` (oc-mirror).
fn image_set(document: &Yaml, what: &str, names: &mut Vec<String>) -> Result<()> {
    let mirror = document["mirror"].as_hash().ok_or_else(|| odd(what, "mirror"))?;
    for (section, value) in mirror {
        match section.as_str() {
            Some("additionalImages") => {
                for image in value.as_vec().ok_or_else(|| odd(what, "mirror.additionalImages"))? {
                    let name = image["name"].as_str().or(image.as_str());
                    names.push(name.ok_or_else(|| odd(what, "mirror.additionalImages: name"))?.to_owned());
                }
            }
            // They name images by graphs of releases and catalogs, which only that tool reads.
            section => return Err(odd(what, &format!("mirror.{}", section.unwrap_or("?")))),
        }
    }
    Ok(())
}

/// `REGISTRY: images: REPOSITORY: [TAG, …]` (skopeo-sync(1), "YAML file content").
fn sync(document: &Yaml, what: &str, names: &mut Vec<String>) -> Result<()> {
    for (registry, settings) in document.as_hash().ok_or_else(|| odd(what, "no map of registries"))? {
        let registry = registry.as_str().ok_or_else(|| odd(what, "the name of a registry"))?;
        for (setting, value) in settings.as_hash().ok_or_else(|| odd(what, registry))? {
            let setting = setting.as_str().unwrap_or("?");
            if setting != "images" {
                // Credentials and certificates are options here, and tags are not guessed.
                return Err(odd(what, &format!("{registry}.{setting}")));
            }
            for (repository, tags) in
                value.as_hash().ok_or_else(|| odd(what, &format!("{registry}.images")))?
            {
                let repository =
                    repository.as_str().ok_or_else(|| odd(what, &format!("{registry}.images")))?;
                let named = || odd(what, &format!("{registry}.images.{repository}"));
                for tag in tags.as_vec().filter(|tags| !tags.is_empty()).ok_or_else(named)? {
                    let tag = match tag {
                        Yaml::String(tag) => tag.clone(),
                        // As it was typed: 1.10 is no number here.
                        Yaml::Real(tag) => tag.clone(),
                        Yaml::Integer(tag) => tag.to_string(),
                        _ => return Err(named()),
                    };
                    let separator = if tag.contains(':') { '@' } else { ':' };
                    names.push(format!("{registry}/{repository}{separator}{tag}"));
                }
            }
        }
    }
    Ok(())
}

fn odd(what: &str, field: &str) -> Error {
    Error::usage(format!("{what}: {field}: not understood here"))
        .with_hint("name the images one a line, or as arguments")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let images = images(text.as_bytes(), "list").map_err(|e| e.to_string())?;
        Ok(images.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_name_images() {
        let two = [
            "docker://quay.io/a/b:1.10",
            "docker://quay.io/c@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ];
        let digest = two[1].rsplit_once('@').unwrap().1;
        for text in [
            format!("# some\n\nquay.io/a/b:1.10\n  docker://quay.io/c@{digest}\n"),
            format!("quay.io:\n  images:\n    a/b:\n      - 1.10\n    c:\n      - \"{digest}\"\n"),
            format!(
                "kind: ImageSetConfiguration\nmirror:\n  additionalImages:\n    - name: quay.io/a/b:1.10\n    - name: quay.io/c@{digest}\n"
            ),
        ] {
            assert_eq!(read(&text).unwrap(), two, "{text}");
        }
        assert_eq!(read("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_passed_over() {
        for (text, named) in [
            ("quay.io:\n  images-by-tag-regex:\n    a: ^1\n", "quay.io.images-by-tag-regex"),
            ("quay.io:\n  images:\n    a: []\n", "quay.io.images.a"),
            ("kind: ImageSetConfiguration\nmirror:\n  platform:\n    channels: []\n", "mirror.platform"),
            ("kind: Other\n", "kind: Other"),
            ("a: [", "not a list"),
            ("not a name\n", "list"),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.contains(named), "{text}: {e}");
        }
    }
}
