/*
 * resident: holds memory, to measure what giving it back costs.
 *
 * Symbol: resident. Arguments: a little-endian uint64, how many bytes to hold. They are touched by the first call and kept; later
 * calls answer at once. Result: a uint64, how many bytes are held; nothing when they cannot be.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

uint32_t resident(void *args, uint32_t size, void *result);

static uint64_t held;

uint32_t resident(void *args, uint32_t size, void *result)
{
    uint64_t want;
    if (size != sizeof want)
        return 0;
    memcpy(&want, args, sizeof want);
    if (held == 0 && want > 0) {
        volatile char *memory = malloc(want);
        if (memory == NULL)
            return 0;
        for (uint64_t i = 0; i < want; i += 4096)
            memory[i] = 1;
        held = want;
    }
    memcpy(result, &held, sizeof held);
    return sizeof held;
}
