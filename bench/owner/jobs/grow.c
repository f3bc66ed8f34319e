/*
 * grow: a job whose memory grows. For each line, a number of bytes, it lets go of what it held, maps that many and touches them page by
 * page, in steps of 1 MiB that are due one after the other at its rate; by its own clock it tells when it began, the longest step, and
 * how late a step ended at most after the moment at which the next was due. Ends with its input.
 *
 *   grow BYTES_PER_SECOND
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define STEP (1ull << 20)

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void wait_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0)
        ;
}

/* grow touches fresh memory and answers. */
static void grow(volatile char *memory, uint64_t bytes, uint64_t rate)
{
    uint64_t began = now_ns(), longest = 0, behind = 0, longest_at = began, pause = STEP * 1000000000 / rate;
    for (uint64_t step = 0; step < bytes / STEP; step++) {
        uint64_t due = began + step * pause;
        wait_until(due);
        uint64_t begin = now_ns();
        for (uint64_t i = 0; i < STEP; i += 4096)
            memory[step * STEP + i] = 1;
        uint64_t end = now_ns();
        if (end - begin > longest)
            longest = end - begin, longest_at = begin;
        if (end > due + pause && end - due - pause > behind)
            behind = end - due - pause;
    }
    printf("{\"began_ns\":%llu,\"took_ns\":%llu,\"longest_step_ns\":%llu,\"longest_step_at_ns\":%llu,\"behind_ns\":%llu}\n",
           (unsigned long long)began, (unsigned long long)(now_ns() - began), (unsigned long long)longest,
           (unsigned long long)(longest_at - began), (unsigned long long)behind);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[64];
    uint64_t rate = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, held = 0;
    char *memory = NULL;
    if (rate < STEP) {
        fprintf(stderr, "usage: grow BYTES_PER_SECOND, at least 1 MiB/s\n");
        return 2;
    }
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint64_t bytes = strtoull(line, NULL, 10) / STEP * STEP;
        if (held > 0)
            munmap(memory, held);
        held = bytes;
        memory = bytes > 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : NULL;
        if (memory == MAP_FAILED) {
            perror("grow");
            return 1;
        }
        grow(memory, bytes, rate);
    }
    return 0;
}
