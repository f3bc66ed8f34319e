# The example policy in Python skips its test without these.
APT_OPTIONAL += python3-grpcio python3-protobuf
