/* A TFLite external delegate without a device, for tests/edgetpu.rs, which compiles it: it takes the operator
 * "edgetpu-custom-op", whose output is its input, and fails in the way that its options name. Not a driver.
 *
 *   mode       works, null (refuses), prepare, invoke (fails there), hang, crash (in an inference), wrong (computes it), or
 *              stuck (hangs when it is made)
 *   mode_file  a file that holds the mode instead: what a repaired device looks like
 *   after      how many inferences work before the mode begins
 *   log        a file to which a line is added each time a delegate is asked for: the number of the process that asks
 *
 * The declarations are those of TFLite 2.17's C interface for opaque delegates, as far as they are used. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Context Context;
typedef struct Delegate Delegate;
typedef struct Node Node;
typedef struct Operator Operator;
typedef struct Tensor Tensor;
typedef struct { int size; int data[]; } IntArray;
typedef struct {
    void *data;
    int (*prepare)(Context *, Delegate *, void *);
    void *copy_from, *copy_to, *free_handle;
    int64_t flags;
} Builder;

Delegate *TfLiteOpaqueDelegateCreate(const Builder *);
void TfLiteOpaqueDelegateDelete(Delegate *);
Operator *TfLiteOperatorCreateWithData(int, const char *, int, void *);
void TfLiteOperatorSetPrepareWithData(Operator *, int (*)(void *, Context *, Node *));
void TfLiteOperatorSetInvokeWithData(Operator *, int (*)(void *, Context *, Node *));
const char *TfLiteOperatorGetCustomName(const Operator *);
int TfLiteOpaqueContextGetExecutionPlan(Context *, IntArray **);
int TfLiteOpaqueContextGetNodeAndRegistration(Context *, int, Node **, Operator **);
int TfLiteOpaqueContextReplaceNodeSubsetsWithDelegateKernels(Context *, Operator *, const IntArray *, Delegate *);
const Tensor *TfLiteOpaqueNodeGetInput(const Context *, const Node *, int);
Tensor *TfLiteOpaqueNodeGetOutput(Context *, const Node *, int);
void *TfLiteOpaqueTensorData(const Tensor *);
size_t TfLiteOpaqueTensorByteSize(const Tensor *);

enum { OK = 0, ERROR = 1, DELEGATE = 51, DYNAMIC_TENSORS = 1 };

static char mode[32] = "works";
static long after;

static int is(const char *name) { return strcmp(mode, name) == 0; }

static int prepare_kernel(void *data, Context *context, Node *node) {
    (void)data, (void)context, (void)node;
    return OK;
}

static int invoke(void *data, Context *context, Node *node) {
    (void)data;
    const Tensor *input = TfLiteOpaqueNodeGetInput(context, node, 0);
    Tensor *output = TfLiteOpaqueNodeGetOutput(context, node, 0);
    char *to = TfLiteOpaqueTensorData(output);
    size_t size = TfLiteOpaqueTensorByteSize(output);
    if (TfLiteOpaqueTensorByteSize(input) != size) return ERROR;
    memcpy(to, TfLiteOpaqueTensorData(input), size);
    if (after-- > 0) return OK;
    if (is("invoke")) return ERROR;
    if (is("crash")) {
        /* Past the handler by which Rust sees that a stack has overflowed. */
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (is("hang")) for (;;) pause();
    if (is("wrong")) for (size_t i = 0; i < size; i++) to[i] ^= 0x40;
    return OK;
}

static int prepare(Context *context, Delegate *delegate, void *data) {
    (void)data;
    if (is("prepare")) return ERROR;
    IntArray *plan;
    if (TfLiteOpaqueContextGetExecutionPlan(context, &plan) != OK) return ERROR;
    IntArray *mine = malloc(sizeof *mine + plan->size * sizeof(int));
    if (!mine) return ERROR;
    mine->size = 0;
    for (int i = 0; i < plan->size; i++) {
        Node *node;
        Operator *op;
        if (TfLiteOpaqueContextGetNodeAndRegistration(context, plan->data[i], &node, &op) != OK) return ERROR;
        const char *name = TfLiteOperatorGetCustomName(op);
        if (name && strcmp(name, "edgetpu-custom-op") == 0) mine->data[mine->size++] = plan->data[i];
    }
    int status = OK;
    if (mine->size > 0) {
        Operator *kernel = TfLiteOperatorCreateWithData(DELEGATE, "stub", 1, NULL);
        TfLiteOperatorSetPrepareWithData(kernel, prepare_kernel);
        TfLiteOperatorSetInvokeWithData(kernel, invoke);
        status = TfLiteOpaqueContextReplaceNodeSubsetsWithDelegateKernels(context, kernel, mine, delegate);
    }
    free(mine);
    return status;
}

Delegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                        void (*report)(const char *)) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i], "mode") == 0) snprintf(mode, sizeof mode, "%s", values[i]);
        else if (strcmp(keys[i], "after") == 0) after = strtol(values[i], NULL, 10);
        else if (strcmp(keys[i], "log") == 0) {
            FILE *file = fopen(values[i], "a");
            if (!file || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0) abort();
        } else if (strcmp(keys[i], "mode_file") == 0) {
            FILE *file = fopen(values[i], "r");
            if (!file || fscanf(file, "%31s", mode) != 1) strcpy(mode, "null");
            if (file) fclose(file);
        } else {
            report("unknown option");
            return NULL;
        }
    }
    if (is("null")) {
        report("no device is plugged in");
        return NULL;
    }
    if (is("stuck")) for (;;) pause();
    Builder builder = {.prepare = prepare, .flags = DYNAMIC_TENSORS};
    return TfLiteOpaqueDelegateCreate(&builder);
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { TfLiteOpaqueDelegateDelete(delegate); }
