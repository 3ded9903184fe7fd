/* Runs a TensorFlow Lite model with the XNNPACK delegate on one thread, so that its guest instructions can be counted.
 * Usage: xnnpack MODEL.tflite IMAGE.u8 TIMES OUTPUT     the image's bytes are u8; the model reads i8, less by 128
 * It prints a line after each inference, which ends a lap of count.c. The smallest output (the evidence map) goes to
 * OUTPUT as u8. Not a benchmark of time.
 *
 * The library's package has no headers: what is used of TensorFlow Lite's C API is declared here. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteInterpreterOptions TfLiteInterpreterOptions;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteTensor TfLiteTensor;
typedef struct TfLiteDelegate TfLiteDelegate;
TfLiteModel *TfLiteModelCreateFromFile(const char *);
TfLiteInterpreterOptions *TfLiteInterpreterOptionsCreate(void);
void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions *, int32_t);
void TfLiteInterpreterOptionsAddDelegate(TfLiteInterpreterOptions *, TfLiteDelegate *);
TfLiteInterpreter *TfLiteInterpreterCreate(const TfLiteModel *, const TfLiteInterpreterOptions *);
int TfLiteInterpreterAllocateTensors(TfLiteInterpreter *);
int TfLiteInterpreterInvoke(TfLiteInterpreter *);
TfLiteTensor *TfLiteInterpreterGetInputTensor(const TfLiteInterpreter *, int32_t);
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter *);
const TfLiteTensor *TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter *, int32_t);
size_t TfLiteTensorByteSize(const TfLiteTensor *);
int TfLiteTensorCopyFromBuffer(TfLiteTensor *, const void *, size_t);
int TfLiteTensorCopyToBuffer(const TfLiteTensor *, void *, size_t);

/* The first two fields are what is set here; the rest, whatever its length in this version, comes from the defaults. */
typedef struct { int32_t threads; uint32_t flags; uint8_t rest[248]; } XnnpackOptions;
enum { SIGNED_INT8 = 1, UNSIGNED_INT8 = 2 };
XnnpackOptions TfLiteXNNPackDelegateOptionsDefault(void);
TfLiteDelegate *TfLiteXNNPackDelegateCreate(const XnnpackOptions *);

static void need(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "xnnpack: %s failed\n", what);
    exit(1);
}

int main(int argc, char **argv)
{
    need(argc == 5, "reading the arguments MODEL.tflite IMAGE.u8 TIMES OUTPUT");
    TfLiteModel *model = TfLiteModelCreateFromFile(argv[1]);
    need(model != NULL, "loading the model");
    XnnpackOptions wanted = TfLiteXNNPackDelegateOptionsDefault();
    wanted.threads = 1;
    wanted.flags |= SIGNED_INT8 | UNSIGNED_INT8;
    TfLiteInterpreterOptions *options = TfLiteInterpreterOptionsCreate();
    TfLiteInterpreterOptionsSetNumThreads(options, 1);
    TfLiteInterpreterOptionsAddDelegate(options, TfLiteXNNPackDelegateCreate(&wanted));
    TfLiteInterpreter *interpreter = TfLiteInterpreterCreate(model, options);
    need(interpreter && !TfLiteInterpreterAllocateTensors(interpreter), "preparing the model");

    TfLiteTensor *input = TfLiteInterpreterGetInputTensor(interpreter, 0);
    size_t size = TfLiteTensorByteSize(input);
    uint8_t *image = malloc(size);
    FILE *file = fopen(argv[2], "rb");
    need(image && file && fread(image, 1, size, file) == size, "reading the image");
    for (size_t i = 0; i < size; i++) image[i] ^= 0x80;
    for (int times = atoi(argv[3]); times > 0; times--) {
        need(!TfLiteTensorCopyFromBuffer(input, image, size), "setting the input");
        need(!TfLiteInterpreterInvoke(interpreter), "the inference");
        need(puts("inference") >= 0 && !fflush(stdout), "writing");
    }

    const TfLiteTensor *evidence = NULL;
    for (int32_t i = 0; i < TfLiteInterpreterGetOutputTensorCount(interpreter); i++) {
        const TfLiteTensor *output = TfLiteInterpreterGetOutputTensor(interpreter, i);
        if (!evidence || TfLiteTensorByteSize(output) < TfLiteTensorByteSize(evidence)) evidence = output;
    }
    size = TfLiteTensorByteSize(evidence);
    uint8_t *map = malloc(size);
    need(map && !TfLiteTensorCopyToBuffer(evidence, map, size), "reading the output");
    for (size_t i = 0; i < size; i++) map[i] ^= 0x80;
    file = fopen(argv[4], "wb");
    need(file && fwrite(map, 1, size, file) == size && !fclose(file), "writing the output");
    return 0;
}
