/* The hardware's ceiling: how many multiplications with accumulation a second each kind of instruction can do, with all
 * operands in registers. Not a benchmark of memory, nor of any kernel. Prints one line of JSON: GMAC/s a thread.
 *
 * Usage: ceiling THREADS
 * Build: cc -O2 -pthread ceiling.c
 * Twelve accumulators hide the latency of every instruction here; inline assembly keeps the compiler from helping.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if !defined(__x86_64__)
int main(void) {
    puts("{}"); /* nothing is known of this architecture's instructions here */
    return 0;
}
#else

/* How long one repetition runs, and how often: the best one counts, since noise only slows down. */
enum { REPETITIONS = 5, MAX_THREADS = 256 };
static const double SLICE_SECONDS = 0.02;

#define Z(n) "%%zmm" #n
#define Y(n) "%%ymm" #n
/* Each F(n) is the work on accumulator n; registers 12 to 15 are operands or scratch. */
#define TWELVE(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define CLOBBERS                                                                                                       \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm13", "xmm14", "xmm15", "cc"
/* `count` times the twelve; all registers start at zero, so that no f32 is subnormal or grows. */
#define LOOP(name, BODY)                                                                                               \
    static void name(uint64_t count) {                                                                                 \
        __asm__ volatile("vzeroall\n1:\n" TWELVE(BODY) "dec %0\njnz 1b\nvzeroupper\n" : "+r"(count) : : CLOBBERS);     \
    }

#define DPBUSD_ZMM(n) "vpdpbusd " Z(13) ", " Z(12) ", " Z(n) "\n"
#define DPBUSD_YMM(n) "vpdpbusd " Y(13) ", " Y(12) ", " Y(n) "\n"
#define DPBUSD_VEX(n) "%{vex%} vpdpbusd " Y(13) ", " Y(12) ", " Y(n) "\n"
#define DPWSSD_ZMM(n) "vpdpwssd " Z(13) ", " Z(12) ", " Z(n) "\n"
#define DPWSSD_VEX(n) "%{vex%} vpdpwssd " Y(13) ", " Y(12) ", " Y(n) "\n"
#define MADDWD_YMM(n) "vpmaddwd " Y(13) ", " Y(12) ", " Y(14) "\nvpaddd " Y(14) ", " Y(n) ", " Y(n) "\n"
#define FMA_ZMM(n) "vfmadd231ps " Z(13) ", " Z(12) ", " Z(n) "\n"
#define FMA_YMM(n) "vfmadd231ps " Y(13) ", " Y(12) ", " Y(n) "\n"
LOOP(dpbusd_zmm, DPBUSD_ZMM)
LOOP(dpbusd_ymm, DPBUSD_YMM)
LOOP(dpbusd_vex, DPBUSD_VEX)
LOOP(dpwssd_zmm, DPWSSD_ZMM)
LOOP(dpwssd_vex, DPWSSD_VEX)
LOOP(maddwd_ymm, MADDWD_YMM)
LOOP(fma_zmm, FMA_ZMM)
LOOP(fma_ymm, FMA_YMM)

struct instruction {
    const char *name;
    int macs; /* of one accumulator's work */
    int there;
    void (*loop)(uint64_t);
};

struct job {
    const struct instruction *instruction;
    pthread_barrier_t *barrier;
    double best; /* MAC a second */
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *work(void *argument) {
    struct job *job = argument;
    uint64_t count = 1000;
    /* How many turns fill a slice; this also brings the clock up. */
    for (;;) {
        double start = now();
        job->instruction->loop(count);
        double seconds = now() - start;
        if (seconds > SLICE_SECONDS / 2) {
            count = (uint64_t)((double)count * SLICE_SECONDS / seconds);
            break;
        }
        count *= 2;
    }
    for (int i = 0; i < REPETITIONS; i++) {
        pthread_barrier_wait(job->barrier);
        double start = now();
        job->instruction->loop(count);
        double rate = 12.0 * job->instruction->macs * (double)count / (now() - start);
        if (rate > job->best) job->best = rate;
    }
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc == 2 ? atoi(argv[1]) : 0;
    if (threads < 1 || threads > MAX_THREADS) {
        fprintf(stderr, "usage: ceiling THREADS (1 to %d)\n", MAX_THREADS);
        return 1;
    }
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") != 0, fma = __builtin_cpu_supports("fma") != 0;
    int avx512 = __builtin_cpu_supports("avx512f") != 0, vnni = __builtin_cpu_supports("avx512vnni") != 0;
    int vl = vnni && __builtin_cpu_supports("avx512vl"), avxvnni = __builtin_cpu_supports("avxvnni") != 0;
    const struct instruction instructions[] = {
        {"vpdpbusd zmm", 64, vnni, dpbusd_zmm},   {"vpdpbusd ymm", 32, vl || avxvnni, vl ? dpbusd_ymm : dpbusd_vex},
        {"vpdpwssd zmm", 32, vnni, dpwssd_zmm},   {"vpdpwssd ymm", 16, avxvnni, dpwssd_vex},
        {"vpmaddwd+vpaddd ymm", 16, avx2, maddwd_ymm}, {"vfmadd231ps zmm", 16, avx512, fma_zmm},
        {"vfmadd231ps ymm", 8, fma, fma_ymm},
    };
    const char *separator = "{";
    for (size_t i = 0; i < sizeof instructions / sizeof *instructions; i++) {
        if (!instructions[i].there) continue;
        pthread_t ids[MAX_THREADS];
        struct job jobs[MAX_THREADS];
        pthread_barrier_t barrier;
        pthread_barrier_init(&barrier, NULL, (unsigned)threads);
        for (int t = 0; t < threads; t++) {
            jobs[t] = (struct job){&instructions[i], &barrier, 0.0};
            if (pthread_create(&ids[t], NULL, work, &jobs[t]) != 0) {
                fprintf(stderr, "ceiling: cannot start %d threads\n", threads);
                return 1;
            }
        }
        double sum = 0.0;
        for (int t = 0; t < threads; t++) {
            pthread_join(ids[t], NULL);
            sum += jobs[t].best;
        }
        pthread_barrier_destroy(&barrier);
        printf("%s\"%s\": %.1f", separator, instructions[i].name, sum / threads / 1e9);
        separator = ", ";
    }
    puts(*separator == '{' ? "{}" : "}");
    return 0;
}
#endif
