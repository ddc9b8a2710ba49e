//! The scheduler between a fake skopeo and workers that wait for each other.

use crate::support;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use oci_delta_fetch::cancel::Cancel;
use oci_delta_fetch::error::{Error, IoContext};
use oci_delta_fetch::fetch::{Concurrency, Download, Job, Place, Worked, run};
use oci_delta_fetch::proxy::{Proxy, ProxyOptions};
use oci_delta_fetch::registry::Blobs;
use oci_spec::image::{Descriptor, MediaType};
use support::blobs::Layout;
use support::fake::FakeSkopeo;
use support::images::noise;

/// Longer than any pipe or queue, so that a download needs its reader.
const LARGE: usize = 4 << 20;
/// Only a failing test waits this long.
const NEVER: Duration = Duration::from_secs(20);

fn brought<T: Send + 'static>(
    layout: &Layout,
    concurrency: Concurrency,
    work: impl Fn(Job) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let fake = FakeSkopeo::new(layout.path(), "0.2.8", "", 0);
    let options = ProxyOptions { skopeo: fake.program(), inactivity_timeout: NEVER, ..Default::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = runtime.block_on(async {
        let blobs = Arc::new(Blobs::new(Proxy::new("docker://h/r:t", options), None));
        let downloads = layout.layers.iter().enumerate().map(|(index, (digest, size))| {
            let blob = Descriptor::new(MediaType::ImageLayer, *size, digest.clone());
            Download::new(index, blob, Place::Remote(blobs.clone()))
        });
        let work = Arc::new(move |job: Job| Ok(Worked::Done(work(job))));
        run(downloads.collect(), concurrency, &Cancel::default(), work).await.unwrap()
    });
    fake.assert_gone();
    results
}

fn read(mut job: Job) -> Vec<u8> {
    let mut bytes = Vec::new();
    job.blob.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_next_download_runs_while_the_last_layer_is_finished() {
    let blobs = [noise(1, LARGE), noise(2, LARGE)];
    let layout = Layout::new(&[&blobs[0], &blobs[1]]);
    let (done, other_is_here) = mpsc::channel();
    let other_is_here = Mutex::new(other_is_here);
    // The first layer is not finished before the second has come, whole, through the one download slot.
    let results = brought(&layout, Concurrency { downloads: 1, workers: 2 }, move |job| {
        let index = job.index;
        let bytes = read(job);
        match index {
            0 => other_is_here.lock().unwrap().recv_timeout(NEVER).expect("the next download is under way"),
            _ => done.send(()).unwrap(),
        }
        bytes
    });
    assert!(results == blobs);
}

#[test]
fn two_downloads_run_at_once() {
    let blobs = [noise(1, LARGE), noise(2, LARGE)];
    let layout = Layout::new(&[&blobs[0], &blobs[1]]);
    let (done, other_is_here) = mpsc::channel();
    let other_is_here = Mutex::new(other_is_here);
    // The first blob is not even read before the second has come.
    let results = brought(&layout, Concurrency { downloads: 2, workers: 2 }, move |job| {
        if job.index == 0 {
            other_is_here.lock().unwrap().recv_timeout(NEVER).expect("the other download is under way");
            return read(job);
        }
        let bytes = read(job);
        done.send(()).unwrap();
        bytes
    });
    assert!(results == blobs);
}

#[test]
fn no_more_workers_than_allowed_are_at_work() {
    let blobs: Vec<Vec<u8>> = (0..6).map(|seed| noise(seed, 1000)).collect();
    let layout = Layout::new(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let at_work = Arc::new(Mutex::new(0));
    let most = brought(&layout, Concurrency { downloads: 6, workers: 2 }, move |job| {
        let now = {
            let mut count = at_work.lock().unwrap();
            *count += 1;
            *count
        };
        read(job);
        *at_work.lock().unwrap() -= 1;
        now
    });
    assert!(most.into_iter().max() <= Some(2));
}

#[test]
fn an_error_ends_the_run_without_a_wait_for_what_stands_still() {
    let layout = Layout::new(&[&noise(1, LARGE), &noise(2, LARGE)]);
    // The first blob stands still half-way; the second one is bad.
    let fake = FakeSkopeo::new(layout.path(), "0.2.8", "stall", 1);
    let options =
        ProxyOptions { skopeo: fake.program(), inactivity_timeout: 5 * NEVER, ..Default::default() };
    let at_work = Arc::new(AtomicUsize::new(0));
    let counted = at_work.clone();
    let work = Arc::new(move |mut job: Job| {
        counted.fetch_add(1, Ordering::SeqCst);
        let result = match job.index {
            0 => job.blob.read_to_end(&mut Vec::new()).map(|_| Worked::Done(())).at("blob"),
            _ => Err(Error::verification("bad")),
        };
        counted.fetch_sub(1, Ordering::SeqCst);
        result
    });
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async {
        let blobs = Arc::new(Blobs::new(Proxy::new("docker://h/r:t", options), None));
        let downloads = layout.layers.iter().enumerate().map(|(index, (digest, size))| {
            let blob = Descriptor::new(MediaType::ImageLayer, *size, digest.clone());
            Download::new(index, blob, Place::Remote(blobs.clone()))
        });
        let concurrency = Concurrency { downloads: 2, workers: 2 };
        run(downloads.collect(), concurrency, &Cancel::default(), work).await.unwrap_err()
    });
    assert_eq!(error.to_string(), "bad");
    assert!(started.elapsed() < NEVER, "{:?}", started.elapsed());
    assert_eq!(at_work.load(Ordering::SeqCst), 0, "a worker is still at work");
    fake.assert_gone();
}
