//! What crosses an air gap: a plain OCI layout, or several when it is cut into parts, with a table of all that
//! belongs to it; and the list of what the other side has.

mod cut;
mod have;
// Lists that people write are the program's part.
#[cfg(feature = "cli")]
mod images;
mod table;

pub use cut::{Share, cut};
#[cfg(feature = "cli")]
pub use have::MAX_LIST;
pub use have::{Have, HaveImage};
#[cfg(feature = "cli")]
pub use images::images;
pub use table::{Bundled, BundledBase, BundledManifest, MAX_DEPTH, Referrer, TABLE, Table, TableBlob};
