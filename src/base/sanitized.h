/* sanitized.h: whether this build runs under a sanitizer of memory or threads: 1 or 0. For tests whose limits a sanitizer's own
 * memory would break, or that need fewer cases there: sanitizers look at the code, the plain build for the rare case. */
#ifndef AT_BASE_SANITIZED_H
#define AT_BASE_SANITIZED_H

#if defined(__has_feature) /* clang */
#if __has_feature(thread_sanitizer)
#define AT_SANITIZED_THREAD 1
#elif __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define AT_SANITIZED_MEMORY 1
#endif
#elif defined(__SANITIZE_THREAD__) /* gcc */
#define AT_SANITIZED_THREAD 1
#elif defined(__SANITIZE_ADDRESS__)
#define AT_SANITIZED_MEMORY 1
#endif

#ifndef AT_SANITIZED_THREAD
#define AT_SANITIZED_THREAD 0
#endif
#ifndef AT_SANITIZED_MEMORY
#define AT_SANITIZED_MEMORY 0
#endif
#define AT_SANITIZED (AT_SANITIZED_MEMORY || AT_SANITIZED_THREAD)

#endif
