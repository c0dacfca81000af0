# Toolchain file: AArch64 Linux with Debian's cross C library (gcc-aarch64-linux-gnu, libc6-dev-arm64-cross).
# -DATOLL_CROSS_COMPILER=gcc (the default) or clang, which takes the same library and linker.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(ATOLL_CROSS_COMPILER gcc CACHE STRING "gcc or clang")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ATOLL_CROSS_COMPILER)
if(ATOLL_CROSS_COMPILER STREQUAL clang)
  set(CMAKE_C_COMPILER clang)
  set(CMAKE_C_COMPILER_TARGET aarch64-linux-gnu)
else()
  set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
endif()
set(CMAKE_EXE_LINKER_FLAGS_INIT -static) # so that the emulator needs no libraries of the other architecture
