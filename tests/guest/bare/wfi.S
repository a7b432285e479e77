# Harts that wait with no interrupt enabled wait for ever, and whoever runs them is told.
# run: --harts 2
# exit: 124
#include "bare.inc"

_start:
1:  wfi
    j       1b
