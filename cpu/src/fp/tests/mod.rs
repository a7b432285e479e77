//! The two implementations against each other, and cases that the specification spells out.

mod agreement;
mod cases;
mod values;
