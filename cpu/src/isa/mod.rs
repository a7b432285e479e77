//! Instruction list, decoder, encoder and disassembler.
