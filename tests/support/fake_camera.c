/* A Video4Linux camera where the kernel has none: preloaded into roentgend, it answers the calls that a driver would.
 * Not a model of any device. The folder named by FAKE_CAMERA is its world:
 *
 *   video0 …     the device files of one camera, up to video9, also by links; one that is missing is unplugged
 *   modes        a line a mode: FORMAT WIDTH HEIGHT PICTURES_A_SECOND BYTES_OF_PADDING
 *   scene.grey   what it sees: width and height as 32-bit numbers, then a byte a pixel; read anew for every frame
 *   scene.jpg    the same for MJPG, served as it is
 *   damage       while it is there, frames come flagged as damaged
 *   answer       a line as in modes: what S_FMT sets instead of what it is asked for
 *   leftover     while it is there, S_FMT keeps the bytes a line of the format before, where they are more: "said" (only in
 *                what it answers) or "sent" (in its frames too)
 *   line         the bytes a line that S_FMT has answered with
 *   no-rate      while it is there, S_PARM is refused
 *
 * The crate v4l makes its ioctls through syscall(2), and everything else through the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 4
#define ROOM ((size_t)8 << 20)
#define MODES 32
#define OPEN 8

struct mode { uint32_t format, width, height, rate, padding; };
struct camera {
    int fd;
    char device[8];
    struct mode mode;
    uint32_t said_line;
    uint32_t buffers, sequence;
    uint32_t queue[64], head, tail;
    int streaming;
    int64_t due;
    uint8_t *memory;
};
static struct camera cameras[OPEN];

static long real_syscall(long number, long a, long b, long c, long d, long e, long f) {
    static long (*next)(long, ...);
    if (!next) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return next(number, a, b, c, d, e, f);
}

static int64_t now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static const char *world(const char *name) {
    static __thread char path[4096];
    const char *folder = getenv("FAKE_CAMERA");
    if (!folder) return NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int is_there(const char *name) {
    const char *path = world(name);
    return path && real_syscall(SYS_faccessat, AT_FDCWD, (long)path, F_OK, 0, 0, 0) == 0;
}

static uint8_t *contents(const char *name, size_t *length) {
    const char *path = world(name);
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file) return NULL;
    uint8_t *bytes = malloc(ROOM);
    *length = bytes ? fread(bytes, 1, ROOM, file) : 0;
    fclose(file);
    return bytes;
}

static int modes(const char *name, struct mode *all) {
    size_t length = 0;
    char *text = (char *)contents(name, &length), *rest = NULL;
    int count = 0;
    if (!text) return 0;
    text[length < ROOM ? length : ROOM - 1] = 0;
    for (char *line = strtok_r(text, "\n", &rest); line && count < MODES; line = strtok_r(NULL, "\n", &rest)) {
        char format[8] = {0};
        struct mode mode = {0};
        if (sscanf(line, "%7s %u %u %u %u", format, &mode.width, &mode.height, &mode.rate, &mode.padding) < 4) continue;
        char code[4] = {' ', ' ', ' ', ' '};
        memcpy(code, format, strnlen(format, 4));
        memcpy(&mode.format, code, 4);
        all[count++] = mode;
    }
    free(text);
    return count;
}

static uint32_t line_bytes(const struct mode *mode) {
    if (mode->format == V4L2_PIX_FMT_MJPEG) return 0;
    int wide = mode->format == V4L2_PIX_FMT_YUYV || mode->format == V4L2_PIX_FMT_Y16;
    return mode->width * (wide ? 2 : 1) + mode->padding;
}

static uint32_t frame_bytes(const struct mode *mode) {
    if (mode->format == V4L2_PIX_FMT_MJPEG) return ROOM / 2;
    uint32_t plane = line_bytes(mode) * mode->height;
    return mode->format == V4L2_PIX_FMT_NV12 ? plane * 3 / 2 : plane;
}

/* Draws what is seen into a buffer; the bytes that it takes. */
static uint32_t draw(struct camera *camera, uint8_t *into) {
    const struct mode *mode = &camera->mode;
    size_t length = 0;
    if (mode->format == V4L2_PIX_FMT_MJPEG) {
        uint8_t *jpeg = contents("scene.jpg", &length);
        if (jpeg) memcpy(into, jpeg, length);
        free(jpeg);
        return length;
    }
    uint8_t *scene = contents("scene.grey", &length);
    uint32_t width = 0, height = 0, state = camera->sequence * 2654435761u + 1;
    if (scene && length > 8) { memcpy(&width, scene, 4); memcpy(&height, scene + 4, 4); }
    if (!width || length < 8 + (size_t)width * height) { free(scene); return 0; }
    uint32_t line = line_bytes(mode);
    memset(into, 0xff, frame_bytes(mode));
    for (uint32_t y = 0; y < mode->height; y++) {
        const uint8_t *from = scene + 8 + (size_t)(y * height / mode->height) * width;
        uint8_t *to = into + (size_t)y * line;
        for (uint32_t x = 0; x < mode->width; x++) {
            state = state * 1664525u + 1013904223u;
            int level = from[x * width / mode->width] + (int)(state >> 30) - 1;
            level = level < 0 ? 0 : level > 255 ? 255 : level;
            switch (mode->format) {
            case V4L2_PIX_FMT_YUYV: to[2 * x] = level; to[2 * x + 1] = 128; break;
            /* 12 bits in the lower ones, as many sensors have it. */
            case V4L2_PIX_FMT_Y16: to[2 * x] = level << 4; to[2 * x + 1] = level >> 4; break;
            default: to[x] = level;
            }
        }
    }
    free(scene);
    return frame_bytes(mode);
}

static struct camera *camera_of(int fd) {
    for (int i = 0; i < OPEN; i++) if (cameras[i].memory && cameras[i].fd == fd) return &cameras[i];
    return NULL;
}

static int fail(int error) { errno = error; return -1; }

static int open_camera(const char *device, int flags) {
    if (!is_there(device)) return fail(ENOENT);
    for (int i = 0; i < OPEN; i++) {
        if (cameras[i].memory) continue;
        int fd = real_syscall(SYS_memfd_create, (long)"fake-camera", flags & O_CLOEXEC ? MFD_CLOEXEC : 0, 0, 0, 0, 0);
        if (fd < 0 || ftruncate(fd, BUFFERS * ROOM)) return -1;
        struct mode all[MODES];
        memset(&cameras[i], 0, sizeof cameras[i]);
        if (modes("modes", all)) cameras[i].mode = all[0];
        cameras[i].fd = fd;
        strcpy(cameras[i].device, device);
        cameras[i].memory = mmap(NULL, BUFFERS * ROOM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return fd;
    }
    return fail(EBUSY);
}

static void describe(struct camera *camera, struct v4l2_format *format) {
    struct v4l2_pix_format *pix = &format->fmt.pix;
    memset(pix, 0, sizeof *pix);
    pix->width = camera->mode.width;
    pix->height = camera->mode.height;
    pix->pixelformat = camera->mode.format;
    pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = camera->said_line ? camera->said_line : line_bytes(&camera->mode);
    pix->sizeimage = frame_bytes(&camera->mode);
    /* As drivers of later kernels may: numbers that nobody knows. */
    pix->colorspace = 77;
    pix->xfer_func = 78;
}

/* What a driver makes of the bytes a line that its last format had. */
static void keep_line(struct camera *camera) {
    size_t length = 0;
    uint32_t before = 0, own = line_bytes(&camera->mode);
    char *left = (char *)contents("leftover", &length), *line = (char *)contents("line", &length);
    if (line && length < ROOM) { line[length] = 0; before = strtoul(line, NULL, 10); }
    camera->said_line = left && before > own ? before : own;
    if (left && !strncmp(left, "sent", 4)) camera->mode.padding += camera->said_line - own;
    free(left);
    free(line);
    FILE *file = fopen(world("line"), "wb");
    if (file) { fprintf(file, "%u", camera->said_line); fclose(file); }
}

static int control(struct camera *camera, uint32_t request, void *argument) {
    struct mode all[MODES];
    int count = modes("modes", all), seen = 0;
    if (!is_there(camera->device)) return fail(ENODEV);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *said = argument;
        memset(said, 0, sizeof *said);
        strcpy((char *)said->driver, "fake");
        /* A maker's name that is no UTF-8. */
        strcpy((char *)said->card, "Fake camera \xe9");
        said->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        said->capabilities = said->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *format = argument;
        for (int i = 0; i < count; i++) {
            int is_new = 1;
            for (int j = 0; j < i; j++) if (all[j].format == all[i].format) is_new = 0;
            if (is_new && seen++ == (int)format->index) { format->pixelformat = all[i].format; return 0; }
        }
        return fail(EINVAL);
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *size = argument;
        for (int i = 0; i < count; i++) {
            if (all[i].format != size->pixel_format || seen++ != (int)size->index) continue;
            size->type = V4L2_FRMSIZE_TYPE_DISCRETE;
            size->discrete.width = all[i].width;
            size->discrete.height = all[i].height;
            return 0;
        }
        return fail(EINVAL);
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
        struct v4l2_frmivalenum *interval = argument;
        for (int i = 0; i < count; i++) {
            if (all[i].format != interval->pixel_format || all[i].width != interval->width || interval->index) continue;
            interval->type = V4L2_FRMIVAL_TYPE_DISCRETE;
            interval->discrete.numerator = 1;
            interval->discrete.denominator = all[i].rate;
            return 0;
        }
        return fail(EINVAL);
    }
    case VIDIOC_G_FMT: describe(camera, argument); return 0;
    case VIDIOC_S_FMT: {
        struct v4l2_format *format = argument;
        if (camera->streaming) return fail(EBUSY);
        for (int i = 0; i < count; i++) {
            struct v4l2_pix_format *pix = &format->fmt.pix;
            if (all[i].format == pix->pixelformat && all[i].width == pix->width && all[i].height == pix->height) {
                camera->mode = all[i];
                break;
            }
        }
        if (modes("answer", all)) camera->mode = all[0];
        keep_line(camera);
        describe(camera, format);
        return 0;
    }
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *parameters = argument;
        if (is_there("no-rate")) return fail(ENOTTY);
        uint32_t rate = parameters->parm.capture.timeperframe.denominator;
        if (rate && rate < camera->mode.rate) camera->mode.rate = rate;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wanted = argument;
        if (wanted->memory != V4L2_MEMORY_MMAP) return fail(EINVAL);
        if (wanted->count > BUFFERS) wanted->count = BUFFERS;
        camera->buffers = wanted->count;
        camera->head = camera->tail = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: case VIDIOC_QBUF: {
        struct v4l2_buffer *buffer = argument;
        if (buffer->index >= camera->buffers) return fail(EINVAL);
        buffer->length = frame_bytes(&camera->mode);
        buffer->m.offset = buffer->index * ROOM;
        if (request == VIDIOC_QBUF) camera->queue[camera->tail++ % 64] = buffer->index;
        return 0;
    }
    case VIDIOC_STREAMON: camera->streaming = 1; camera->due = now_us(); return 0;
    case VIDIOC_STREAMOFF: camera->streaming = 0; camera->head = camera->tail; return 0;
    case VIDIOC_DQBUF: {
        struct v4l2_buffer *buffer = argument;
        if (!camera->streaming) return fail(EINVAL);
        if (camera->head == camera->tail || now_us() < camera->due) return fail(EAGAIN);
        camera->due = now_us() + 1000000 / (camera->mode.rate ? camera->mode.rate : 1);
        buffer->index = camera->queue[camera->head++ % 64];
        buffer->bytesused = draw(camera, camera->memory + buffer->index * ROOM);
        buffer->flags = (is_there("damage") ? V4L2_BUF_FLAG_ERROR : 0) | V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        int64_t now = now_us();
        buffer->timestamp.tv_sec = now / 1000000;
        buffer->timestamp.tv_usec = now % 1000000;
        buffer->sequence = camera->sequence++;
        return 0;
    }
    default: return fail(ENOTTY);
    }
}

/* The name of the device that a path leads to; NULL for all else. */
static const char *device_of(const char *path) {
    static __thread char target[4096], folder[4096];
    const char *world_folder = getenv("FAKE_CAMERA");
    if (!world_folder || strncmp(path, world_folder, strlen(world_folder))) return NULL;
    /* One that is missing leads nowhere. */
    if (!realpath(world_folder, folder)) return NULL;
    const char *at = realpath(path, target) ? target : path;
    const char *name = strrchr(at, '/');
    if (!name || (size_t)(name - at) != strlen(at == path ? world_folder : folder)) return NULL;
    return strncmp(name, "/video", 6) == 0 && strlen(name) == 7 ? name + 1 : NULL;
}

static int open_any(const char *path, int flags, int mode) {
    const char *device = device_of(path);
    return device ? open_camera(device, flags) : real_syscall(SYS_openat, AT_FDCWD, (long)path, flags, mode, 0, 0);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return open_any(path, flags, mode);
}

int close(int fd) {
    struct camera *camera = camera_of(fd);
    if (camera) { munmap(camera->memory, BUFFERS * ROOM); camera->memory = NULL; }
    return real_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}

long syscall(long number, ...) {
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
    long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    struct camera *camera = number == SYS_ioctl ? camera_of((int)a) : NULL;
    return camera ? control(camera, (uint32_t)b, (void *)c) : real_syscall(number, a, b, c, d, e, f);
}

int poll(struct pollfd *all, nfds_t count, int timeout) {
    struct camera *camera = count == 1 ? camera_of(all[0].fd) : NULL;
    if (!camera) {
        static int (*next)(struct pollfd *, nfds_t, int);
        if (!next) next = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
        return next(all, count, timeout);
    }
    for (int64_t end = now_us() + (int64_t)timeout * 1000;;) {
        if (!is_there(camera->device)) { all[0].revents = POLLERR | POLLHUP; return 1; }
        if (camera->streaming && camera->head != camera->tail && now_us() >= camera->due) { all[0].revents = POLLIN; return 1; }
        if (timeout >= 0 && now_us() >= end) { all[0].revents = 0; return 0; }
        usleep(2000);
    }
}
