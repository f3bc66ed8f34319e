# What 'gleaner bench neighbour' runs: the host's program and the function, one kind of work each.
NEIGHBOUR_KINDS := bench/neighbour/loads/kinds.c bench/neighbour/loads/kinds.h

$(BUILD)/libexec/gleaner/neighbour: bench/neighbour/loads/host.c $(NEIGHBOUR_KINDS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -std=gnu11 -o $@ bench/neighbour/loads/host.c bench/neighbour/loads/kinds.c

$(BUILD)/lib/gleaner/functions/stress.so: bench/neighbour/loads/stress.c $(NEIGHBOUR_KINDS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -std=gnu11 -shared -fPIC -o $@ bench/neighbour/loads/stress.c bench/neighbour/loads/kinds.c

$(BUILD)/test/stress_test: bench/neighbour/loads/stress_test.c bench/neighbour/loads/stress.c $(NEIGHBOUR_KINDS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -std=gnu11 -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -o $@ bench/neighbour/loads/stress_test.c bench/neighbour/loads/kinds.c

BUILD_TARGETS += $(BUILD)/libexec/gleaner/neighbour $(BUILD)/lib/gleaner/functions/stress.so
C_TESTS += $(BUILD)/test/stress_test

# Host and functions on a cluster of one node (root); POLICIES are measured one after the other.
.PHONY: bench-neighbour
bench-neighbour: build
	@bench/neighbour/run $(BUILD) "$(or $(POLICIES),idle pressure)" $(ARGS)
