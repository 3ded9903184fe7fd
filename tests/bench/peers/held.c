/* Makes a program believe that its CPU stops at AVX2: answers its cpuid instructions without AVX-512, VNNI and AMX.
 * To be preloaded (LD_PRELOAD) with libraries in which held.py has written `int 3` (cd 03) over each cpuid (0f a2): the
 * trap comes here, cpuid is executed in its place, and the bits are cleared. Nothing is emulated: instructions that the
 * program then chooses run at full speed. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

/* Bits of leaf 7: everything AVX-512 or later. The leaves are those of Intel's and AMD's manuals. */
enum { LEAF_FEATURES = 7, LEAF_AVX10 = 0x24 };
static const unsigned EBX7 = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const unsigned ECX7 = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const unsigned EDX7 = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25;

static void answer(int number, siginfo_t *info, void *context) {
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    if (code[-2] != 0xcd || code[-1] != 0x03) { /* not one of ours: let it end the program, as it would have */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, subleaf, a, b, c, d);
    if (leaf == LEAF_FEATURES && subleaf == 0) {
        a = 0; /* no further subleaves: those hold AVX-VNNI and what came after */
        b &= ~EBX7;
        c &= ~ECX7;
        d &= ~EDX7;
    } else if (leaf == LEAF_FEATURES || leaf == LEAF_AVX10) {
        a = b = c = d = 0;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGTRAP, &action, 0);
}
