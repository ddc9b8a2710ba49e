//! The integration tests: one program, since most of the time to build many is to link them.
//! `cargo test --test all fetch::` runs those of one file.
#![allow(missing_docs, missing_debug_implementations)]

mod support;

mod account;
mod apply;
mod base_files;
mod bundle;
mod bundle_trouble;
mod certificates;
mod codec;
#[cfg(feature = "composefs")]
mod composefs;
#[cfg(feature = "composefs")]
mod composefs_delta;
mod create;
mod create_hostile;
mod create_property;
mod discovery;
mod embed;
mod exact;
mod extended;
mod fetch;
mod fuse;
mod helper;
mod hostile_artifact;
mod hostile_patch;
mod hostile_registry;
mod house;
mod interface;
mod killed;
mod layouts;
mod member;
mod network;
mod offer;
mod opened;
mod ostree;
mod outages;
mod patch_readers;
mod podman;
mod proxy;
mod registry;
mod registry_answers;
mod registry_images;
mod resume;
mod rootless;
mod scheduler;
mod serve;
mod shared_repository;
mod signals;
mod started;
mod store_conformance;
mod surroundings;
mod trust;
