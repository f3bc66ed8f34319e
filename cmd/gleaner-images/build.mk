# The images helper: a module of its own, because Podman's bindings and runc's library exclude each other. It is built where its modules
# can be had; without it there are no images, and nothing else is missing.
IMAGES_TAGS := containers_image_openpgp remote exclude_graphdriver_btrfs exclude_graphdriver_devicemapper
APT_OPTIONAL += podman crun busybox-static docker-registry

.PHONY: go-images
go-images:
	@mkdir -p $(BUILD)/libexec/gleaner
	@cd cmd/gleaner-images && $(GO) build $(GOFLAGS_LEAN) -tags "$(IMAGES_TAGS)" -o $(abspath $(BUILD))/libexec/gleaner/images . || \
		echo "images: not built, because its modules cannot be had; there will be no --image"

.PHONY: test-images
test-images: # a module of its own is no part of ./...
	@cd cmd/gleaner-images && $(GO) vet -tags "$(IMAGES_TAGS)" . && $(GO) test -tags "$(IMAGES_TAGS)" .

BUILD_TARGETS += go-images
