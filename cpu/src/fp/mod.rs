//! IEEE 754 arithmetic, bit-exact on every host.
