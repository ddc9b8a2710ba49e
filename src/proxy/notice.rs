//! Words for people about waits that seem to have no reason.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

/// A wait that people ask themselves about.
pub(super) const LONG: Duration = Duration::from_secs(3);
/// A wait for skopeo that people ask themselves about. It answers a registry that is asked too often by
/// waiting for half a minute and more, and says nothing.
const QUIET: Duration = Duration::from_secs(8);

/// Where they go.
struct Teller(Box<dyn Fn(&str) + Send + Sync>);

static TELLER: OnceLock<Teller> = OnceLock::new();

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

/// Has words about long waits for registries told to `to`. The first one who asks hears them.
pub fn tell_waits(to: impl Fn(&str) + Send + Sync + 'static) {
    // There is one terminal.
    let _ = TELLER.set(Teller(Box::new(to)));
}

/// Tells it, if somebody listens.
pub(super) fn tell(text: &str) {
    if let Some(Teller(to)) = TELLER.get() {
        to(text);
    }
}

/// Waits for `answer`, and says so where that takes long.
pub(super) async fn of_waiting<T>(reference: &str, answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        () = tokio::time::sleep(QUIET) => {}
    }
    tell(&format!("{reference}: no answer yet; a registry that is asked too often (429) makes skopeo wait"));
    answer.await
}
