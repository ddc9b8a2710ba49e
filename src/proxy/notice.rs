//! Words for people about waits that seem to have no reason.

use std::time::Duration;

use crate::progress::{Event, Reporter};

/// A wait that people ask themselves about.
pub(super) const LONG: Duration = Duration::from_secs(3);
/// A wait for skopeo that people ask themselves about. It answers a registry that is asked too often by
/// waiting for half a minute and more, and says nothing.
const QUIET: Duration = Duration::from_secs(8);

/// Waits for `answer`, and says so where that takes long.
pub(super) async fn of_waiting<T>(
    reference: &str,
    reporter: &dyn Reporter,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        () = tokio::time::sleep(QUIET) => {}
    }
    let text =
        format!("{reference}: no answer yet; a registry that is asked too often (429) makes skopeo wait");
    reporter.event(Event::Message(&text));
    answer.await
}
