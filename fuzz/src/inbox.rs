//! The read-ahead, compared with a plain vector.

use bowline::core::inbox::Inbox;

use super::bytes::Bytes;

pub fn run(input: &[u8]) {
    let mut input = Bytes::new(input);
    let (mut inbox, mut model) = (Inbox::default(), Vec::new());
    let mut next = 0_u8;
    while !input.is_empty() {
        match input.below(7) {
            0 => {
                let bytes: Vec<u8> = (0..input.size()).map(|_| count(&mut next)).collect();
                inbox.push(&bytes);
                model.extend_from_slice(&bytes);
            }
            1 => {
                let room = input.size();
                let n = room.min(input.size());
                let space = inbox.space_of(room);
                assert!(space.len() >= room);
                for byte in &mut space[..n] {
                    *byte = count(&mut next);
                    model.push(*byte);
                }
                inbox.filled(n);
            }
            2 => {
                let n = input.size();
                inbox.consume(n);
                model.drain(..n.min(model.len()));
            }
            3 => assert_eq!(inbox.take(), std::mem::take(&mut model)),
            4 => {
                inbox.clear();
                model.clear();
            }
            5 => inbox.release(),
            _ => {
                let n = input.below(200).min(inbox.space().len());
                for byte in &mut inbox.space()[..n] {
                    *byte = count(&mut next);
                    model.push(*byte);
                }
                inbox.filled(n);
            }
        }
        assert_eq!(inbox.as_slice(), model);
        assert_eq!((inbox.len(), inbox.is_empty()), (model.len(), model.is_empty()));
        if model.len() > 1 << 20 {
            return;
        }
    }
}

fn count(next: &mut u8) -> u8 {
    *next = next.wrapping_add(1);
    *next
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![vec![0, 20, 2, 7, 5, 3], vec![1, 240, 230, 2, 255, 6, 9, 4], vec![0, 1, 0, 1, 2, 1, 5, 2, 1, 5]]
}
