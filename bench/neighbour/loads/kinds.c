#include "kinds.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

const char *const kind_names[KINDS] = {"compute", "bandwidth", "cache", "memory", "io"};

static const uint64_t own_bytes[KINDS] = {0, 64 << 20, 1 << 20, 32 << 20, 256 << 10};

#define LINE 64

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t next(uint64_t x)
{
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ x << 17;
}

/* chain links the lines of a block into one circle in random order (Sattolo). */
static void chain(char *block, uint64_t lines)
{
    uint64_t *order = malloc(lines * sizeof *order), x = 88172645463325252ull;
    if (order == NULL)
        return;
    for (uint64_t i = 0; i < lines; i++)
        order[i] = i;
    for (uint64_t i = lines - 1; i > 0; i--) {
        x = next(x);
        uint64_t j = x % i, t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint64_t i = 0; i < lines; i++)
        *(uint64_t *)(block + i * LINE) = order[i] * LINE;
    free(order);
}

int begin(struct state *s, enum kind kind, uint64_t bytes)
{
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->sum = 1;
    s->bytes = (bytes ? bytes : own_bytes[kind]) / (2 * LINE) * (2 * LINE);
    if (kind == COMPUTE || kind == MEMORY)
        return 0;
    if (s->bytes == 0 || (s->block = aligned_alloc(LINE, s->bytes)) == NULL)
        return -1;
    memset(s->block, 1, s->bytes);
    if (kind == CACHE)
        chain(s->block, s->bytes / LINE);
    return 0;
}

static void compute(struct state *s)
{
    uint64_t x = s->sum | 1;
    double y = 1;
    for (int i = 0; i < 400000; i++) {
        x = next(x);
        y = y * 0.999999 + 1e-9 * (double)(x & 1023);
    }
    s->sum = x + (uint64_t)y;
}

static void bandwidth(struct state *s)
{
    uint64_t half = s->bytes / 2;
    memcpy(s->block, s->block + half, half);
    memcpy(s->block + half, s->block, half);
    s->sum += (unsigned char)s->block[s->sum % half];
}

static void cache(struct state *s)
{
    uint64_t at = 0;
    for (int i = 0; i < 200000; i++)
        at = *(volatile uint64_t *)(s->block + at);
    s->sum += at;
}

static int memory(struct state *s)
{
    char *p = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -1;
    for (uint64_t i = 0; i < s->bytes; i += 4096)
        p[i] = 1;
    s->sum += (unsigned char)p[s->bytes - 4096];
    return munmap(p, s->bytes);
}

static int io(struct state *s)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    if (dir == NULL || strlen(dir) > sizeof path - 32)
        dir = "/tmp";
    strcpy(path, dir);
    strcat(path, "/neighbour.XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    unlink(path);
    int ok = write(fd, s->block, s->bytes) == (ssize_t)s->bytes && fdatasync(fd) == 0;
    s->sum++;
    return close(fd) == 0 && ok ? 0 : -1;
}

int work(struct state *s, uint64_t units)
{
    for (uint64_t i = 0; i < units; i++) {
        int bad = 0;
        switch (s->kind) {
        case COMPUTE: compute(s); break;
        case BANDWIDTH: bandwidth(s); break;
        case CACHE: cache(s); break;
        case MEMORY: bad = memory(s); break;
        case IO: bad = io(s); break;
        default: bad = -1;
        }
        if (bad)
            return -1;
    }
    return 0;
}

void end(struct state *s) { free(s->block); }
