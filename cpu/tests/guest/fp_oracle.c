/*
 * What a RISC-V processor answers to every F and D operation.
 *
 * Reads records of three doubles and three singles (bits, little-endian, 36 bytes) from standard input. For each
 * record and each rounding mode 0 to 4 writes, per operation in the order of operations(), the 64-bit result register
 * (a single is given by its low half) and the byte of flags that the operation raised from none.
 *
 * Build: riscv64-linux-gnu-gcc -O1 -static -march=rv64gc -mabi=lp64d
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct operands {
    uint64_t a, b, c;
    uint32_t x, y, z;
} __attribute__((packed));

/* Between clearing and reading the flags there is nothing but the instruction. */
#define RUN(instruction, output, ...)                                                                      \
    ({                                                                                                     \
        uint64_t flags_;                                                                                   \
        __asm__ volatile("fsflags zero\n\t" instruction "\n\tfrflags %1" : output, "=&r"(flags_)           \
                         : __VA_ARGS__ : "memory");                                                        \
        flags = (uint8_t)flags_;                                                                           \
    })

static uint64_t bits_d(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint64_t bits_s(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double d(uint64_t bits)
{
    double value;
    __asm__("fmv.d.x %0, %1" : "=f"(value) : "r"(bits));
    return value;
}

static float s(uint32_t bits)
{
    float value;
    __asm__("fmv.w.x %0, %1" : "=f"(value) : "r"(bits));
    return value;
}

static void emit(uint64_t result, uint8_t flags)
{
    uint8_t record[9];
    for (int i = 0; i < 8; i++)
        record[i] = (uint8_t)(result >> (8 * i));
    record[8] = flags;
    fwrite(record, sizeof record, 1, stdout);
}

#define D_FROM(op, ...) do { double r; uint8_t flags; RUN(op, "=&f"(r), __VA_ARGS__); emit(bits_d(r), flags); } while (0)
#define S_FROM(op, ...) do { float r; uint8_t flags; RUN(op, "=&f"(r), __VA_ARGS__); emit(bits_s(r), flags); } while (0)
#define X_FROM(op, ...) do { uint64_t r; uint8_t flags; RUN(op, "=&r"(r), __VA_ARGS__); emit(r, flags); } while (0)

#define ARITHMETIC(FROM, w, a, b, c)                                                                       \
    FROM("fadd." w " %0, %2, %3", "f"(a), "f"(b));                                                         \
    FROM("fsub." w " %0, %2, %3", "f"(a), "f"(b));                                                         \
    FROM("fmul." w " %0, %2, %3", "f"(a), "f"(b));                                                         \
    FROM("fdiv." w " %0, %2, %3", "f"(a), "f"(b));                                                         \
    FROM("fsqrt." w " %0, %2", "f"(a));                                                                    \
    FROM("fmadd." w " %0, %2, %3, %4", "f"(a), "f"(b), "f"(c));                                            \
    FROM("fmin." w " %0, %2, %3", "f"(a), "f"(b));                                                         \
    FROM("fmax." w " %0, %2, %3", "f"(a), "f"(b));                                                         \
    X_FROM("feq." w " %0, %2, %3", "f"(a), "f"(b));                                                        \
    X_FROM("flt." w " %0, %2, %3", "f"(a), "f"(b));                                                        \
    X_FROM("fle." w " %0, %2, %3", "f"(a), "f"(b));                                                        \
    X_FROM("fclass." w " %0, %2", "f"(a));                                                                 \
    X_FROM("fcvt.w." w " %0, %2, dyn", "f"(a));                                                            \
    X_FROM("fcvt.wu." w " %0, %2, dyn", "f"(a));                                                           \
    X_FROM("fcvt.l." w " %0, %2, dyn", "f"(a));                                                            \
    X_FROM("fcvt.lu." w " %0, %2, dyn", "f"(a))

static void operations(const struct operands *in)
{
    double a = d(in->a), b = d(in->b), c = d(in->c);
    float x = s(in->x), y = s(in->y), z = s(in->z);
    uint64_t n = in->a; /* As an integer; the 32-bit conversions read its low half. */

    ARITHMETIC(D_FROM, "d", a, b, c);
    ARITHMETIC(S_FROM, "s", x, y, z);
    D_FROM("fcvt.d.s %0, %2", "f"(x));
    S_FROM("fcvt.s.d %0, %2, dyn", "f"(a));
    D_FROM("fcvt.d.w %0, %2", "r"(n));
    D_FROM("fcvt.d.wu %0, %2", "r"(n));
    D_FROM("fcvt.d.l %0, %2, dyn", "r"(n));
    D_FROM("fcvt.d.lu %0, %2, dyn", "r"(n));
    S_FROM("fcvt.s.w %0, %2, dyn", "r"(n));
    S_FROM("fcvt.s.wu %0, %2, dyn", "r"(n));
    S_FROM("fcvt.s.l %0, %2, dyn", "r"(n));
    S_FROM("fcvt.s.lu %0, %2, dyn", "r"(n));
}

int main(void)
{
    struct operands in;
    while (fread(&in, sizeof in, 1, stdin) == 1) {
        for (uint64_t mode = 0; mode <= 4; mode++) {
            __asm__ volatile("fsrm %0" : : "r"(mode) : "memory");
            operations(&in);
        }
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
