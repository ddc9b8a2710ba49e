//! The `oci-delta-fetch` command.

fn main() {}
