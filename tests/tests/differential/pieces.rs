//! What a case is made of: which kind of instruction comes next.

use crate::code::Piece;
use crate::layout::CODE_BYTES;
use crate::profile::Profile;
use crate::stream::{Stream, is_float, is_integer};
use crate::system;

impl Stream<'_> {
    /// The pieces of a case.
    pub fn pieces(&mut self) -> Vec<Piece> {
        let wanted = 1 + self.random.below(16);
        let (mut pieces, mut bytes): (Vec<Piece>, usize) = (vec![], 0);
        for at in 0..wanted {
            // What may be fetched through page tables is seen at the start: most cases end by a fault of data.
            let leaves = at == 0 && self.shape.profile == Profile::Paging && self.random.chance(15);
            let piece = if leaves { self.jump_out() } else { self.piece() };
            bytes += piece.bytes();
            if bytes + 4 > CODE_BYTES {
                break;
            }
            pieces.push(piece);
        }
        pieces
    }

    fn piece(&mut self) -> Piece {
        let weights = self.shape.profile.weights();
        let mut at = self.random.below(weights.total());
        let mut chosen = |weight: u64| {
            let hit = at < weight;
            at = at.wrapping_sub(weight);
            hit
        };
        if chosen(weights.integer) {
            self.plain(is_integer)
        } else if chosen(weights.compressed) {
            self.compressed()
        } else if chosen(weights.memory) {
            self.memory()
        } else if chosen(weights.atomic) {
            self.atomic()
        } else if chosen(weights.float) {
            self.plain(is_float)
        } else if chosen(weights.jump) {
            self.jump()
        } else if chosen(weights.csr) {
            system::csr(self)
        } else {
            system::other(self)
        }
    }
}
