/*
 * neighbour: the host's program. It does one kind of work, finds out how much takes a given time, and then does exactly that much
 * for each line that it reads, writing the nanoseconds that it took. Ends with its input.
 *
 *   neighbour KIND MILLISECONDS [BYTES]
 */
#include "kinds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* units is how many units take about a time: the quietest of some tries counts. */
static uint64_t units(struct state *s, uint64_t ns)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        uint64_t begin = now_ns();
        if (work(s, 4) < 0)
            return 0;
        uint64_t took = (now_ns() - begin) / 4;
        best = took < best ? took : best;
    }
    return ns / (best + 1) + 1;
}

int main(int argc, char **argv)
{
    enum kind kind = 0;
    struct state s;
    char line[64];
    if (argc < 3) {
        fprintf(stderr, "usage: neighbour KIND MILLISECONDS [BYTES]\n");
        return 2;
    }
    while (kind < KINDS && strcmp(argv[1], kind_names[kind]) != 0)
        kind++;
    if (kind == KINDS || atoi(argv[2]) < 1) {
        fprintf(stderr, "neighbour: kind %s for %s ms: want compute, bandwidth, cache, memory or io, and a time\n", argv[1], argv[2]);
        return 2;
    }
    if (begin(&s, kind, argc > 3 ? strtoull(argv[3], NULL, 10) : 0) < 0) {
        fprintf(stderr, "neighbour: no memory\n");
        return 1;
    }
    uint64_t n = units(&s, (uint64_t)atoi(argv[2]) * 1000000);
    if (n == 0) {
        perror("neighbour: this kind of work cannot be done here");
        return 1;
    }
    printf("ready %llu\n", (unsigned long long)n);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint64_t begin = now_ns();
        if (work(&s, n) < 0) {
            perror("neighbour");
            return 1;
        }
        printf("%llu\n", (unsigned long long)(now_ns() - begin));
        fflush(stdout);
    }
    end(&s);
    return 0;
}
