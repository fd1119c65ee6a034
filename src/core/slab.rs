//! A set of things, each with a number by which it is taken out again. Room that became free is used again.

/// Adding and taking out are O(1); memory is that of the largest number of things there ever was.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Option<u32>,
    len: usize,
}

#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// With the next free one behind it.
    Free(Option<u32>),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Slab<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one, and says its number.
    ///
    /// # Panics
    /// With more than 2³² things at once.
    pub fn insert(&mut self, thing: T) -> u32 {
        self.len += 1;
        if let Some(number) = self.free {
            let place = &mut self.places[number as usize];
            if let Place::Free(next) = *place {
                self.free = next;
            }
            *place = Place::Taken(thing);
            return number;
        }
        let number = u32::try_from(self.places.len()).expect("no system has as many connections");
        self.places.push(Place::Taken(thing));
        number
    }

    /// Takes one out, where it is there.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        let place = self.places.get_mut(number as usize).filter(|place| matches!(place, Place::Taken(_)))?;
        let taken = std::mem::replace(place, Place::Free(self.free.replace(number)));
        self.len -= 1;
        match taken {
            Place::Taken(thing) => Some(thing),
            Place::Free(_) => None,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| match place {
            Place::Taken(thing) => Some(thing),
            Place::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_became_free_is_used_again_and_nothing_is_taken_out_twice() {
        let mut slab = Slab::default();
        let numbers: Vec<u32> = (0..5).map(|n| slab.insert(n)).collect();
        assert_eq!(slab.remove(numbers[1]), Some(1));
        assert_eq!(slab.remove(numbers[3]), Some(3));
        assert_eq!(slab.remove(numbers[3]), None);
        assert_eq!(slab.remove(99), None);
        assert_eq!((slab.len(), slab.is_empty()), (3, false));
        assert_eq!(slab.insert(30), numbers[3]);
        assert_eq!(slab.insert(10), numbers[1]);
        assert_eq!(slab.insert(50), 5);
        let mut all: Vec<i32> = slab.iter().copied().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 2, 4, 10, 30, 50]);
        assert!(numbers.into_iter().chain([5]).all(|number| slab.remove(number).is_some()));
        assert!(slab.is_empty());
    }
}
