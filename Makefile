# The front door. Everything is built by CMake; these targets are what a person types.
#   make run        installs what is missing, builds, trains a small model with four members on this machine
#   make test       the whole test suite: layer law, format, gcc, clang with ASan+UBSan, clang with TSan
#   make test-long  the slow tests (minutes to tens of minutes)
#   make build      the release binary at build/atoll      make bench     measures it beside other programs (15 minutes)
#   make bench-long  the loss curves as well (hours; goes on where it was stopped)
#   make install    copies it to $(DESTDIR)$(PREFIX)/bin   make clean     removes build/
PREFIX ?= /usr/local
.DEFAULT_GOAL := build
.PHONY: build run test test-long bench bench-long install clean packages-run packages-test format

packages-run:
	@scripts/packages run
packages-test:
	@scripts/packages run test

build: packages-run
	@scripts/build

run: build
	@build/atoll demo

test: packages-test
	@scripts/test

test-long: packages-test
	@scripts/test --long

bench: build
	@bench/run

bench-long: build
	@bench/run --long

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/atoll
	install -m 755 build/atoll $(DESTDIR)$(PREFIX)/bin/atoll
	install -m 644 data/moby-dick.txt $(DESTDIR)$(PREFIX)/share/atoll/moby-dick.txt

format:
	@git ls-files 'src/*.c' 'src/*.h' 'tests/*.c' | xargs clang-format -i

clean:
	rm -rf build
