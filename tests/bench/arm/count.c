/* A QEMU plugin (TCG, API version 1) that counts the guest's instructions, all of them and by kind. A line that the
 * guest writes to its standard output ends a lap; so whatever is to be counted by itself prints a line before and one
 * after. To the file of the argument `to=FILE` (else standard error) goes a line `KIND=NUMBER KIND=NUMBER ...` for
 * every lap, and one for what follows the last. Not a profiler: nothing here knows time. Right for one guest thread;
 * two would race on the counters.
 *
 * No package carries the plugin header, so what is used of it is declared here, after QEMU's documentation.
 * Build: cc -O2 -shared -fPIC -o count.so count.c     Use: qemu-aarch64 -plugin ./count.so,to=FILE PROGRAM */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t,
    uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

/* Kinds of AArch64 instructions, the first that fits: (word & mask) == bits. From the Arm Architecture Reference
 * Manual, C4.1 (the top-level table) and the pages of the instructions named. */
static const struct { const char *name; uint32_t mask, bits; } kinds[] = {
    {"dot", 0x9fe0fc00, 0x0e809400},             /* SDOT, UDOT (vector) */
    {"dot", 0x9fc0f400, 0x0f80e000},             /* SDOT, UDOT (by element) */
    {"dot", 0xbfe0fc00, 0x0e809c00},             /* USDOT (vector) */
    {"dot", 0xbf40f400, 0x0f00f000},             /* USDOT, SUDOT (by element) */
    {"mmla", 0xdfe0f400, 0x4e80a400},            /* SMMLA, UMMLA, USMMLA */
    {"mlal", 0x9f20dc00, 0x0e208000},            /* SMLAL, UMLAL, SMLSL, UMLSL (vector) */
    {"mlal", 0x9f20fc00, 0x0e20c000},            /* SMULL, UMULL (vector) */
    {"mlal", 0x9f00b400, 0x0f002000},            /* SMLAL, UMLAL, SMLSL, UMLSL (by element) */
    {"mlal", 0x9f00f400, 0x0f00a000},            /* SMULL, UMULL (by element) */
    {"mla", 0x9f20fc00, 0x0e209400},             /* MLA, MLS (vector) */
    {"mla", 0xbf20fc00, 0x0e209c00},             /* MUL (vector) */
    {"mla", 0xbf00b400, 0x2f000000},             /* MLA, MLS (by element) */
    {"fmla", 0xbf20fc00, 0x0e20cc00},            /* FMLA, FMLS (vector) */
    {"fmla", 0xbf00b400, 0x0f001000},            /* FMLA, FMLS (by element) */
    {"simd_load_store", 0x0e000000, 0x0c000000},
    {"load_store", 0x0a000000, 0x08000000},
    {"simd_other", 0x0e000000, 0x0e000000},
    {"sve", 0x1e000000, 0x04000000},
    {"branch", 0x1c000000, 0x14000000},
    {"integer", 0, 0},
};
#define KINDS (sizeof kinds / sizeof *kinds)

struct block {
    uint64_t runs; /* how often it was entered in this lap; QEMU adds to it */
    struct block *next;
    uint16_t of_kind[KINDS];
};
static struct block *blocks;
static FILE *out;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block) abort();
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
        size_t kind = 0;
        while ((word & kinds[kind].mask) != kinds[kind].bits) kind++;
        block->of_kind[kind]++;
    }
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &block->runs, 1);
}

/* Writes the counts since the last lap, and begins another. */
static void lap(void)
{
    uint64_t counts[KINDS] = {0}, all = 0;
    for (struct block *block = blocks; block; block = block->next) {
        for (size_t kind = 0; kind < KINDS; kind++) counts[kind] += block->runs * block->of_kind[kind];
        block->runs = 0;
    }
    for (size_t kind = 0; kind < KINDS; kind++) all += counts[kind];
    for (size_t kind = 0; kind < KINDS; kind++) { /* neighbours of one name are one kind */
        if (kind + 1 < KINDS && !strcmp(kinds[kind].name, kinds[kind + 1].name)) counts[kind + 1] += counts[kind];
        else fprintf(out, "%s=%" PRIu64 " ", kinds[kind].name, counts[kind]);
    }
    fprintf(out, "all=%" PRIu64 "\n", all);
}

/* AArch64's number of write. */
enum { WRITE = 64, STANDARD_OUTPUT = 1 };

static void called(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t file, uint64_t b, uint64_t c, uint64_t d,
    uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id; (void)cpu; (void)b; (void)c; (void)d; (void)e; (void)f; (void)g; (void)h;
    if (number == WRITE && file == STANDARD_OUTPUT) lap();
}

static void ended(qemu_plugin_id_t id, void *data)
{
    (void)id; (void)data;
    lap();
    if (fflush(out)) { perror("count"); exit(1); }
}

struct qemu_info_t;
__attribute__((visibility("default")))
int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    out = stderr;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "to=", 3) || !(out = fopen(argv[i] + 3, "w"))) {
            fprintf(stderr, "count: to=FILE, a file that can be written, is the only argument, not %s\n", argv[i]);
            return 1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
