# The daemons with a clock that the fault suite can step. The top Makefile includes test/*/build.mk.
.PHONY: go-stepped
go-stepped:
	@GO="$(GO)" test/faults/clock/build $(BUILD)/tools/stepped gleaner-agentd gleaner-brokerd
