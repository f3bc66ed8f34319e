# The independent witness: static, the standard library only.
BUILD_TARGETS += go-witness
.PHONY: go-witness
go-witness:
	@mkdir -p $(BUILD)/test
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/test/witness ./test/witness
