//! Entries in fixed chunks, named by number, so that growth moves nothing.

/// Entries per chunk.
const CHUNK: usize = 1 << 10;

/// Numbered entries.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    length: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), length: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// One more than the largest number ever given out.
    pub(crate) fn span(&self) -> u32 {
        let last = self.chunks.last().map_or(0, Vec::len);
        (self.chunks.len().saturating_sub(1) * CHUNK + last) as u32
    }

    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        self.length += 1;
        if let Some(number) = self.free.pop() {
            let (chunk, position) = split(number);
            self.chunks[chunk][position] = Some(entry);
            return number;
        }
        let number = self.span();
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(Some(entry));
        }
        number
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let (chunk, position) = split(number);
        let entry = self.chunks.get_mut(chunk)?.get_mut(position)?.take()?;
        self.free.push(number);
        self.length -= 1;
        Some(entry)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, position) = split(number);
        self.chunks.get(chunk)?.get(position)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (chunk, position) = split(number);
        self.chunks.get_mut(chunk)?.get_mut(position)?.as_mut()
    }
}

const fn split(number: u32) -> (usize, usize) {
    (number as usize / CHUNK, number as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_used_again() {
        let mut slab = Slab::new();
        let numbers: Vec<u32> = (0..3000).map(|value| slab.insert(value)).collect();
        assert_eq!((numbers[2999], slab.span(), slab.len()), (2999, 3000, 3000));
        assert_eq!(slab.remove(1500), Some(1500));
        assert_eq!((slab.remove(1500), slab.get(1500), slab.get(9999)), (None, None, None));
        assert_eq!((slab.insert(7), slab.span()), (1500, 3000));
        assert_eq!(slab.get_mut(1500), Some(&mut 7));
    }
}
