//! The one error type: what went wrong, of which kind, and what to do next.
//!
//! A [`Kind`] says which sort of failure it is; a [`Hint`] is the next step. Errors that
//! cross a `Read` or `Write` border travel inside an [`io::Error`] and are
//! taken out again by [`Error::from_io`], so no kind is lost on the way.

mod hint;

use std::time::Duration;
use std::{error, fmt, io};

pub use hint::{Advice, Hint};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure this is, from the caller's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Disk, permission, repository: something on this machine.
    Local,
    /// The command line asks for something that cannot be.
    Usage,
    /// The delta cannot be used here: base absent or different, unknown format.
    Misfit,
    /// A digest, size or diff_id is not what was promised, or the input breaks its format.
    Verification,
    /// Network or peer trouble that may pass.
    Transient,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The reader of our standard output went away.
    ClosedPipe,
}

impl Kind {
    /// The name used in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Local => "local",
            Kind::Usage => "usage",
            Kind::Misfit => "misfit",
            Kind::Verification => "verification",
            Kind::Transient => "transient",
            Kind::Interrupted => "interrupted",
            Kind::ClosedPipe => "closed-pipe",
        }
    }
}

/// An error with its kind, an optional hint, and an optional cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<Hint>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind`; `message` says what, which, expected and found.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, retry_after: None, source: None }
    }

    /// Something on this machine failed.
    pub fn local(message: impl Into<String>) -> Self {
        Self::new(Kind::Local, message)
    }

    /// The command line cannot be carried out.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The delta cannot be used here.
    pub fn misfit(message: impl Into<String>) -> Self {
        Self::new(Kind::Misfit, message)
    }

    /// Something is not what it claims to be.
    pub fn verification(message: impl Into<String>) -> Self {
        Self::new(Kind::Verification, message)
    }

    /// A fault that may pass.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Kind::Transient, message)
    }

    /// Adds the next step that whoever called can take.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same as a fault that may pass, for those who know more of it than it says.
    #[must_use]
    pub fn that_may_pass(mut self) -> Self {
        self.kind = Kind::Transient;
        self
    }

    /// Adds how long the other side wants to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts `context` before the message, keeping kind, hint and cause.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same for the next one who asks for what failed; without its cause.
    #[must_use]
    pub(crate) fn again(&self) -> Self {
        let (message, hint) = (self.message.clone(), self.hint.clone());
        Error { kind: self.kind, message, hint, retry_after: self.retry_after, source: None }
    }

    /// Turns an I/O error into ours. An [`Error`] that travelled inside it comes
    /// out as it was; anything else becomes [`Kind::Local`] with `context`
    /// (which names the file or blob) before it.
    pub fn from_io(e: io::Error, context: impl fmt::Display) -> Self {
        if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            if let Some(Ok(ours)) = e.into_inner().map(|inner| inner.downcast::<Error>()) {
                return *ours;
            }
            return Error::local(context.to_string());
        }
        Error::local(format!("{context}: {e}")).with_source(e)
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// May it go well when it is tried again, with nothing changed?
    pub fn is_transient(&self) -> bool {
        self.kind == Kind::Transient
    }

    /// How long the other side wants to be left alone, if it said so: its word, so bound it.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The next step, if there is one to name.
    pub fn hint(&self) -> Option<&Hint> {
        self.hint.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        // Names and texts out of images and registries are in it; none may steer a terminal.
        for c in self.message.chars() {
            match c {
                '\n' => f.write_char(c)?,
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        io::Error::other(e)
    }
}

/// Adds a context to `io::Result`, as in `file.sync_all().at(path.display())?`.
pub trait IoContext<T> {
    /// Maps the error through [`Error::from_io`].
    fn at(self, context: impl fmt::Display) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::from_io(e, context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let e = Error::local("tag \x1b[2J\u{9b}31mü\nsecond line").context("x");
        assert_eq!(e.to_string(), "x: tag \\u{1b}[2J\\u{9b}31mü\nsecond line");
    }

    #[test]
    fn an_error_survives_the_trip_through_io() {
        let e = Error::verification("blob is short").with_hint("try again");
        let back = Error::from_io(io::Error::from(e), "ignored");
        assert_eq!(back.kind(), Kind::Verification);
        assert_eq!(back.to_string(), "blob is short");
        assert_eq!(back.hint(), Some(&Hint::text("try again")));
    }

    #[test]
    fn a_plain_io_error_gets_its_context() {
        let e = Error::from_io(io::Error::from(io::ErrorKind::NotFound), "/a/b");
        assert_eq!(e.kind(), Kind::Local);
        assert!(e.to_string().starts_with("/a/b: "), "{e}");
    }
}
