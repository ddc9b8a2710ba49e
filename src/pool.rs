//! Things that come back to be used again: new memory, which the system has to clear and map, costs
//! as much as filling it.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Gives things out, which come back when they are dropped.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    back: Sender<T>,
    empty: Receiver<T>,
    /// Those that came back; the last one is still in the processor's cache.
    spare: Vec<T>,
}

/// What a pool gave out.
#[derive(Debug)]
pub(crate) struct Pooled<T: Default> {
    item: T,
    back: Sender<T>,
}

impl<T: Default> Pool<T> {
    pub(crate) fn new() -> Self {
        let (back, empty) = channel();
        Pool { back, empty, spare: Vec::new() }
    }

    /// One that came back, as it was left, or a new one.
    pub(crate) fn take(&mut self, new: impl FnOnce() -> T) -> Pooled<T> {
        self.spare.extend(self.empty.try_iter());
        Pooled { item: self.spare.pop().unwrap_or_else(new), back: self.back.clone() }
    }
}

impl<T: Default> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T: Default> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

impl<T: Default> Drop for Pooled<T> {
    fn drop(&mut self) {
        let _ = self.back.send(std::mem::take(&mut self.item)); // nobody waits for the last ones
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_comes_back_the_last_one_first() {
        let mut pool = Pool::new();
        let first = pool.take(|| vec![1]);
        let second = pool.take(|| vec![2]);
        let place = second.as_ptr();
        drop(first);
        drop(second);
        let again = [pool.take(Vec::new), pool.take(Vec::new), pool.take(|| vec![3])];
        assert_eq!(again[0].as_ptr(), place);
        assert_eq!(again.each_ref().map(|item| item[0]), [2, 1, 3]);
    }
}
