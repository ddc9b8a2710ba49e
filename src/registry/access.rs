//! What a registry wants to see before it answers: its challenges (RFC 9110, "WWW-Authenticate"), and
//! the tokens of the distribution specification.

use std::fmt;

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde_json::Value;

/// Parameters of a challenge that are looked at; a registry's has three.
const MAX_PARAMETERS: usize = 32;

/// Name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What goes along with a request.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Pass {
    Basic(Login),
    Bearer(String),
    /// The whole header, as somebody else made it.
    Given(HeaderValue),
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass(…)")
    }
}

/// Who meets the challenges.
#[derive(Debug, Clone)]
pub(super) enum Admission {
    /// We do, with name and password or without.
    Login(Option<Login>),
    /// Somebody else, who sent this header; it gets challenges as they are.
    OfOthers(Option<HeaderValue>),
}

impl Admission {
    /// What goes along with the first request.
    pub(super) fn pass(&self) -> Option<Pass> {
        match self {
            Admission::OfOthers(Some(header)) => Some(Pass::Given(header.clone())),
            Admission::OfOthers(None) | Admission::Login(_) => None,
        }
    }

    pub(super) fn is_of_others(&self) -> bool {
        matches!(self, Admission::OfOthers(_))
    }
}

/// A way to be let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// By a token from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The ways that an answer offers and that are known here, in its order: any number in any number of headers.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter();
    texts.flat_map(|value| parse(&String::from_utf8_lossy(value.as_bytes()))).collect()
}

/// Words, `=` and `,` of a header; a quoted string is a word. What is unquoted ends at a comma or blank,
/// so addresses may stand there.
#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Equals,
    Comma,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ',' => tokens.push(Token::Comma),
            // Padding of a token68 ends a word as well, and nothing follows it.
            '=' => tokens.push(Token::Equals),
            '"' => {
                let mut word = String::new();
                while let Some(c) = chars.next().filter(|&c| c != '"') {
                    word.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
                }
                tokens.push(Token::Word(word));
            }
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                // In a value, `=` is part of an address.
                let value = tokens.last() == Some(&Token::Equals);
                while let Some(c) =
                    chars.next_if(|&c| !c.is_whitespace() && c != ',' && c != '"' && (value || c != '='))
                {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    tokens
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let tokens = tokens(text);
    let mut rest = &tokens[..];
    loop {
        rest = match rest {
            [] => break,
            // A parameter of the last scheme.
            [Token::Word(name), Token::Equals, Token::Word(value), rest @ ..] => {
                if let Some((_, parameters)) = found.last_mut().filter(|(_, p)| p.len() < MAX_PARAMETERS) {
                    parameters.push((name.to_ascii_lowercase(), value.clone()));
                }
                rest
            }
            // A scheme begins, unless this is its token68.
            [Token::Word(_), Token::Equals, rest @ ..] => rest,
            [Token::Word(scheme), rest @ ..] => {
                found.push((scheme.to_ascii_lowercase(), Vec::new()));
                rest
            }
            [_, rest @ ..] => rest,
        };
    }
    let known = found.into_iter().filter_map(|(scheme, parameters)| {
        let parameter = |name: &str| {
            let named = parameters.iter().find(|(n, _)| n == name);
            named.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: parameter("realm")?,
                service: parameter("service"),
                scope: parameter("scope"),
            }),
            _ => None,
        }
    });
    known.collect()
}

/// The token in a token server's answer.
pub(super) fn token_in(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    ["token", "access_token"]
        .iter()
        .find_map(|name| json[*name].as_str().filter(|token| !token.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_come_in_any_order() {
        let full = || bearer("https://a/t?x=1", Some("s, t"), Some("repository:a/b:pull,push"));
        let text = r#"Bearer realm="https://a/t?x=1",service="s, t",scope="repository:a/b:pull,push""#;
        for (header, expected) in [
            (text.to_owned(), vec![full()]),
            (format!("{text}, Basic realm=\"x\""), vec![full(), Challenge::Basic]),
            (format!("Basic realm=\"x\", charset=\"UTF-8\", {text}"), vec![Challenge::Basic, full()]),
            (format!("Negotiate, {text}"), vec![full()]),
            (format!("Negotiate YIIB/+x==, {text}"), vec![full()]),
            (format!("Digest realm=\"Basic\", nonce=\"Bearer realm=x\", {text}"), vec![full()]),
            ("basic".to_owned(), vec![Challenge::Basic]),
            (
                "BEARER REALM=https://a/t?x=1,Service=s".to_owned(),
                vec![bearer("https://a/t?x=1", Some("s"), None)],
            ),
            (r#"Bearer realm = "a\"b" , service = """#.to_owned(), vec![bearer("a\"b", None, None)]),
            ("Bearer service=\"x\"".to_owned(), vec![]),
            ("Bearer realm=\"open".to_owned(), vec![bearer("open", None, None)]),
            (String::new(), vec![]),
            (",,=,\"".to_owned(), vec![]),
        ] {
            assert_eq!(parse(&header), expected, "{header}");
        }
    }

    #[test]
    fn tokens_have_two_names() {
        for (body, token) in [
            (r#"{"token":"a","access_token":"b"}"#, Some("a")),
            (r#"{"token":"","access_token":"b","expires_in":null}"#, Some("b")),
            (r#"{"access_token":1}"#, None),
            ("x", None),
        ] {
            assert_eq!(token_in(body.as_bytes()).as_deref(), token, "{body}");
        }
    }
}
