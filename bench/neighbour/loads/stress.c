/*
 * stress: the function. It does one kind of work for a time.
 *
 * Symbol: stress. Arguments: struct order. Result: a uint64, how many units of work were done; nothing when the kind cannot be done here.
 */
#include "kinds.h"

#include <string.h>

/* 16 bytes, little-endian. */
struct order {
    uint32_t kind;
    uint32_t milliseconds;
    uint64_t bytes; /* of what is worked on; 0: the kind's own */
};

uint32_t stress(void *args, uint32_t size, void *result);

uint32_t stress(void *args, uint32_t size, void *result)
{
    static struct state s; /* kept between calls: what counts is the work */
    static uint64_t bytes;
    static int ready;
    struct order o;
    uint64_t done = 0, until;
    if (size != sizeof o)
        return 0;
    memcpy(&o, args, sizeof o);
    if (o.kind >= KINDS)
        return 0;
    if (!ready || s.kind != o.kind || bytes != o.bytes) {
        if (ready)
            end(&s);
        ready = begin(&s, o.kind, o.bytes) == 0;
        bytes = o.bytes;
        if (!ready)
            return 0;
    }
    for (until = now_ns() + o.milliseconds * 1000000ull; now_ns() < until; done++)
        if (work(&s, 1) < 0)
            return 0;
    memcpy(result, &done, sizeof done);
    return sizeof done;
}
