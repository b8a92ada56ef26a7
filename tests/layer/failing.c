// A Vulkan layer that lets one call fail: the FAIL_AT-th of those that FAIL_KIND names (allocate, submit or wait).
// It declares what it needs of the loader's interface itself, so that no headers must be installed.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int32_t Result;
typedef void (*Function)(void);
typedef Function (*GetProcAddr)(void *object, const char *name);

enum { OUT_OF_DEVICE_MEMORY = -2, DEVICE_LOST = -4, INITIALIZATION_FAILED = -3 };
enum { LOADER_INSTANCE_CREATE_INFO = 47, LOADER_DEVICE_CREATE_INFO = 48, LINK_INFO = 0 };

typedef struct Link {
    struct Link *next;
    GetProcAddr instance_proc_addr;
    GetProcAddr device_proc_addr; // of an instance: of a physical device
} Link;

typedef struct CreateInfo {
    int32_t type;
    struct CreateInfo *next;
    int32_t function; // from here on of the loader's structures alone
    Link *link;
} CreateInfo;

static GetProcAddr next_instance, next_device;
static void *the_instance;

// Counts a call, and says whether it is the one that fails.
static int fails(const char *kind) {
    static int calls;
    const char *wanted = getenv("FAIL_KIND"), *at = getenv("FAIL_AT");
    if (!wanted || !at || strcmp(wanted, kind) != 0) {
        return 0;
    }
    if (__atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) != atoi(at)) {
        return 0;
    }
    fprintf(stderr, "layer: %s %s failed\n", kind, at);
    return 1;
}

static Result allocate(void *device, const void *info, const void *allocator, void *memory) {
    if (fails("allocate")) {
        return OUT_OF_DEVICE_MEMORY;
    }
    return ((Result(*)(void *, const void *, const void *, void *))next_device(device, "vkAllocateMemory"))(
        device, info, allocator, memory);
}

// A queue has no way to its device, so the functions that take one are looked up where the device is made.
static Result (*next_submit)(void *, uint32_t, const void *, uint64_t);

static Result submit(void *queue, uint32_t count, const void *submits, uint64_t fence) {
    return fails("submit") ? DEVICE_LOST : next_submit(queue, count, submits, fence);
}

static Result wait_semaphores(void *device, const void *info, uint64_t timeout) {
    if (fails("wait")) {
        return DEVICE_LOST;
    }
    return ((Result(*)(void *, const void *, uint64_t))next_device(device, "vkWaitSemaphores"))(device, info, timeout);
}

static Result wait_fences(void *device, uint32_t count, const void *fences, uint32_t all, uint64_t timeout) {
    if (fails("wait")) {
        return DEVICE_LOST;
    }
    return ((Result(*)(void *, uint32_t, const void *, uint32_t, uint64_t))next_device(device, "vkWaitForFences"))(
        device, count, fences, all, timeout);
}

static CreateInfo *loader_info(const CreateInfo *info, int32_t type) {
    CreateInfo *found = info->next;
    while (found && !(found->type == type && found->function == LINK_INFO)) {
        found = found->next;
    }
    return found;
}

static Result create_instance(const CreateInfo *info, const void *allocator, void **instance) {
    CreateInfo *loader = loader_info(info, LOADER_INSTANCE_CREATE_INFO);
    if (!loader) {
        return INITIALIZATION_FAILED;
    }
    next_instance = loader->link->instance_proc_addr;
    loader->link = loader->link->next;
    Result result = ((Result(*)(const CreateInfo *, const void *, void **))next_instance(NULL, "vkCreateInstance"))(
        info, allocator, instance);
    the_instance = *instance;
    return result;
}

static Result create_device(void *physical, const CreateInfo *info, const void *allocator, void **device) {
    CreateInfo *loader = loader_info(info, LOADER_DEVICE_CREATE_INFO);
    if (!loader) {
        return INITIALIZATION_FAILED;
    }
    next_device = loader->link->device_proc_addr;
    loader->link = loader->link->next;
    Result result = ((Result(*)(void *, const CreateInfo *, const void *, void **))next_instance(
        the_instance, "vkCreateDevice"))(physical, info, allocator, device);
    if (result == 0) {
        next_submit = (Result(*)(void *, uint32_t, const void *, uint64_t))next_device(*device, "vkQueueSubmit");
    }
    return result;
}

static Function of_layer(const char *name);

Function vkGetDeviceProcAddr(void *device, const char *name) {
    Function own = of_layer(name);
    return own ? own : next_device(device, name);
}

Function vkGetInstanceProcAddr(void *instance, const char *name) {
    Function own = of_layer(name);
    return own ? own : next_instance ? next_instance(instance, name) : NULL;
}

static Function of_layer(const char *name) {
    static const struct {
        const char *name;
        Function function;
    } all[] = {
        {"vkGetInstanceProcAddr", (Function)vkGetInstanceProcAddr},
        {"vkGetDeviceProcAddr", (Function)vkGetDeviceProcAddr},
        {"vkCreateInstance", (Function)create_instance},
        {"vkCreateDevice", (Function)create_device},
        {"vkAllocateMemory", (Function)allocate},
        {"vkQueueSubmit", (Function)submit},
        {"vkWaitSemaphores", (Function)wait_semaphores},
        {"vkWaitSemaphoresKHR", (Function)wait_semaphores},
        {"vkWaitForFences", (Function)wait_fences},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i].name, name) == 0) {
            return all[i].function;
        }
    }
    return NULL;
}
