# What 'gleaner bench growth' runs as a job.
$(BUILD)/libexec/gleaner/grow: bench/owner/jobs/grow.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -std=gnu11 -o $@ $<

BUILD_TARGETS += $(BUILD)/libexec/gleaner/grow

# Evictions, job starts and a job that grows, measured on clusters of their own (root).
.PHONY: bench-evict bench-job-start bench-growth
bench-evict: build
	@bench/owner/run $(BUILD) evict $(ARGS)
bench-job-start: build
	@bench/owner/run $(BUILD) job-start $(ARGS)
bench-growth: build
	@bench/owner/run $(BUILD) growth $(ARGS)
