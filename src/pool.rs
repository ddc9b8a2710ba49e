//! Things that come back to be used again: new memory, which the system has to clear and map, costs
//! as much as filling it.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Gives empty things out, which come back when they are dropped.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    new: fn() -> T,
    clear: fn(&mut T),
    back: Sender<T>,
    returned: Receiver<T>,
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
    pub(crate) fn new(new: fn() -> T, clear: fn(&mut T)) -> Self {
        let (back, returned) = channel();
        Pool { new, clear, back, returned, spare: Vec::new() }
    }

    /// One that came back, cleared whoever left it and how, or a new one.
    pub(crate) fn take(&mut self) -> Pooled<T> {
        self.spare.extend(self.returned.try_iter());
        let mut item = self.spare.pop().unwrap_or_else(self.new);
        (self.clear)(&mut item);
        Pooled { item, back: self.back.clone() }
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
    fn what_is_dropped_comes_back_empty_the_last_one_first() {
        let mut pool = Pool::new(|| Vec::with_capacity(4), Vec::clear);
        let (mut first, mut second) = (pool.take(), pool.take());
        let places = [second.as_ptr(), first.as_ptr()];
        first.push(1);
        second.push(2);
        drop(first);
        drop(second);
        let again = [pool.take(), pool.take()];
        assert_eq!(again.each_ref().map(|item| item.as_ptr()), places);
        assert!(again.iter().all(|item| item.is_empty()));
    }
}
