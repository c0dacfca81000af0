# Writes OUT with the commit that SOURCE is at, when it is not there already: cmake -DSOURCE=... -DOUT=... -P commit.cmake
execute_process(COMMAND git describe --always --dirty --abbrev=12 --match=none WORKING_DIRECTORY ${SOURCE}
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR NOT commit)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define ATOLL_COMMIT \"${commit}\"\n" @ONLY)
