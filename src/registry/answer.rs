//! What the answers of registries mean, and those that never came.

use std::error::Error as Cause;
use std::fmt;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::tls;
use crate::error::{Advice, Error, Kind};

/// Bytes of an error's body that are read; a message has a few hundred.
const MAX_REASON: usize = 64 << 10;
/// Characters of it that are shown.
const MAX_SHOWN: usize = 600;

/// The status of an answer that is no success; the cause of the error about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status(StatusCode);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the registry answered {}", self.0)
    }
}

impl Cause for Status {}

/// The status that a registry answered with, if that is what the error is about.
pub(super) fn status_of(e: &Error) -> Option<u16> {
    e.source()?.downcast_ref::<Status>().map(|status| status.0.as_u16())
}

/// There is nothing under that name.
pub(super) fn is_absent(e: &Error) -> bool {
    matches!(status_of(e), Some(404 | 410))
}

/// Trouble of a server or with it, of the kind that a later try may not meet.
fn may_pass(status: StatusCode) -> bool {
    // 501 and 505 say that the server will never do it.
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504 | 506..=599)
}

/// The error for an answer that is no success. `via` is the proxy that it came by.
pub(super) async fn refused(method: &Method, response: Response, via: Option<String>) -> Error {
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|v| wait(v.to_str().ok()?, SystemTime::now()));
    let by = via.map(|proxy| format!(" (by the proxy {proxy})")).unwrap_or_default();
    let mut text = format!("{method} {}: {status}{by}", response.url());
    if let Some(reason) = reason(response).await {
        text = format!("{text}: {reason}");
    }
    let kind = match status.as_u16() {
        401 | 403 | 407 => Kind::Local,
        _ if may_pass(status) => Kind::Transient,
        // What cannot be read leads to another way; what cannot be written is for people.
        _ if [Method::GET, Method::HEAD].contains(method) => Kind::Misfit,
        _ => Kind::Local,
    };
    let error = Error::new(kind, text).with_source(Status(status)).with_retry_after(wait);
    if matches!(status.as_u16(), 401 | 403) { error.with_hint(Advice::LogIn) } else { error }
}

/// `Retry-After` (RFC 9110): seconds, or a date.
fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// What the server says of it, if it can be read.
async fn reason(mut response: Response) -> Option<String> {
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk[..chunk.len().min(MAX_REASON - bytes.len())]);
        if bytes.len() == MAX_REASON {
            break;
        }
    }
    reason_in(&bytes, media_type.as_deref().unwrap_or_default())
}

/// The messages in a body: of the distribution specification's JSON or what resembles it, else its text.
fn reason_in(body: &[u8], media_type: &str) -> Option<String> {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => messages(&json).or_else(|| short_text(&json))?,
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            match text.find("<title>") {
                Some(at) => text[at + 7..].split('<').next().unwrap_or_default().to_owned(),
                None if media_type.contains("html") || text.trim_start().starts_with('<') => return None,
                None => text.into_owned(),
            }
        }
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = line.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
    let more = if shown.len() < line.len() { "…" } else { "" };
    (!shown.is_empty()).then(|| format!("{shown}{more}"))
}

fn messages(json: &Value) -> Option<String> {
    let said = |value: &Value| -> Option<String> {
        let field = |name: &str| match &value[name] {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            // Not every registry has strings there.
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let mut parts: Vec<String> = Vec::new();
        for name in
            ["code", "error", "message", "error_description", "msg", "detail", "details", "title", "reason"]
        {
            parts.extend(field(name).filter(|part| !parts.contains(part)));
        }
        (!parts.is_empty()).then(|| parts.join(": "))
    };
    let inner = [&json["errors"], &json["error"]];
    let all: Vec<String> = inner
        .iter()
        .flat_map(|errors| match errors {
            Value::Array(errors) => errors.iter().filter_map(|e| said(e).or_else(|| short_text(e))).collect(),
            other => Vec::from_iter(said(other)),
        })
        .collect();
    if all.is_empty() { said(json) } else { Some(all.join("; ")) }
}

fn short_text(json: &Value) -> Option<String> {
    json.as_str().map(str::to_owned)
}

/// What a failed request means. `via` is the proxy it took.
pub(super) fn failed(e: reqwest::Error, via: Option<String>) -> Error {
    // The address is named by whoever asks; names in it must not be taken for words about the failure.
    let e = e.without_url();
    let mut text = chain(&e);
    if let Some(proxy) = &via {
        text = format!("{text} (by the proxy {proxy})");
    }
    let tls = tls_error(&e);
    if let Some(refusal) = tls.and_then(tls::refusal) {
        let by = via.map(|proxy| format!(" (by the proxy {proxy})")).unwrap_or_default();
        return Error::local(format!("the registry's certificate is not taken: {refusal}{by}"))
            .with_source(e)
            .with_hint(Advice::TrustRegistry);
    }
    let error = match (tls, e.is_redirect()) {
        // One side does not speak as the other does; that does not pass.
        (Some(_), _) => Error::local(text).with_hint(Advice::TrustRegistry),
        (None, true) => Error::local(text),
        (None, false) => Error::transient(text),
    };
    error.with_source(e)
}

/// The error of TLS below, if there is one. I/O errors hide what they carry from `source`.
fn tls_error<'a>(e: &'a (dyn Cause + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(e);
    while let Some(e) = cause {
        if let Some(tls) = e.downcast_ref() {
            return Some(tls);
        }
        let carried = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = carried.map(|c| c as &(dyn Cause + 'static)).or_else(|| e.source());
    }
    None
}

/// The error and its causes, since the first alone says only that a request failed.
fn chain(e: &dyn Cause) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let more = c.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = c.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_in_many_a_shape() {
        for (body, media_type, expected) in [
            (r#"{"errors":[{"code":"DENIED","message":"no","detail":"why"}]}"#, "", Some("DENIED: no: why")),
            (r#"{"errors":[{"code":"A","message":"x"},{"code":"B","message":"y"}]}"#, "", Some("A: x; B: y")),
            (r#"{"errors":[{"message":null},{"code":"B"}]}"#, "", Some("B")),
            (r#"{"errors":["plain"]}"#, "", Some("plain")),
            (r#"{"error":"invalid_token","error_description":"old"}"#, "", Some("invalid_token: old")),
            (r#"{"error":{"code":403,"message":"quota"}}"#, "", Some("403: quota")),
            (r#"{"message":"rate\nlimit"}"#, "", Some("rate limit")),
            (r#"{"details":"x"}"#, "", Some("x")),
            (r#""just text""#, "", Some("just text")),
            ("too many\r\nrequests\n", "text/plain", Some("too many requests")),
            ("<html><title>502 Bad Gateway</title>…", "text/html", Some("502 Bad Gateway")),
            ("<html>…", "", None),
            ("{}", "application/json", None),
            ("", "", None),
        ] {
            assert_eq!(reason_in(body.as_bytes(), media_type).as_deref(), expected, "{body}");
        }
        let long = reason_in("x ".repeat(1 << 15).as_bytes(), "").unwrap();
        assert!(long.chars().count() <= MAX_SHOWN + 1 && long.ends_with('…'));
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, seconds) in [
            ("2", Some(2)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("99999999999999999999999", Some(u64::from(u32::MAX))),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(wait(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
