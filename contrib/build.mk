# The wrapper stands beside the command that it calls, as in an installation.
$(BUILD)/bin/gleaner-sbatch: contrib/gleaner-sbatch
	@install -D -m 0755 $< $@

BUILD_TARGETS += $(BUILD)/bin/gleaner-sbatch
