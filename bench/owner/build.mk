# Evictions and job starts, measured on clusters of their own (root).
.PHONY: bench-evict bench-job-start
bench-evict: build
	@bench/owner/run $(BUILD) evict $(ARGS)
bench-job-start: build
	@bench/owner/run $(BUILD) job-start $(ARGS)
