# `--max-instructions` is exact: of a loop of three instructions after ten others, 1000 leave 330 rounds counted.
# run: --max-instructions 1000 --signature-granularity 8
# exit: 124
# signature: 000000000000014a
#include "bare.inc"

    .option norvc
_start:
    la      t0, begin_signature         # two instructions
    li      t1, 0
    .rept   7
    nop
    .endr
1:  addi    t1, t1, 1
    sd      t1, 0(t0)
    j       1b

    .data
    .balign 8
    .globl  begin_signature, end_signature
begin_signature:
    .dword  0
end_signature:
