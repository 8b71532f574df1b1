/* One imaginary GPU behind the C interface of NVIDIA's nvml.h, as old as before nvmlDeviceGetTemperatureV.
 * Limits may be set by root alone, as on a real machine. Built by test_nvml_loading.py as libnvidia-ml.so.1. */
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NO_PERMISSION = 4, NOT_FOUND = 6 };

static unsigned int limit_mw = 700000;
static int gpu;

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == NO_PERMISSION ? "Insufficient Permissions" : "Other"; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device)
{
    if (index != 0) return INVALID_ARGUMENT;
    *device = &gpu;
    return SUCCESS;
}

static int put(char *text, unsigned int size, const char *value)
{
    strncpy(text, value, size - 1);
    text[size - 1] = 0;
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned int size)
{
    (void)device;
    return put(text, size, "GPU-00000000-1111-2222-3333-444444444444");
}

int nvmlDeviceGetName(void *device, char *text, unsigned int size) { (void)device; return put(text, size, "Imaginary"); }
int nvmlDeviceGetPowerUsage(void *device, unsigned int *mw) { (void)device; *mw = 71000; return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned int *mw) { (void)device; *mw = limit_mw; return SUCCESS; }
int nvmlDeviceGetPowerManagementLimit(void *device, unsigned int *mw) { (void)device; *mw = limit_mw; return SUCCESS; }
int nvmlDeviceGetPersistenceMode(void *device, unsigned int *mode) { (void)device; *mode = 1; return SUCCESS; }

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned int *low, unsigned int *high)
{
    (void)device;
    *low = 200000;
    *high = 700000;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *celsius)
{
    (void)device;
    (void)sensor;
    *celsius = 41;
    return SUCCESS;
}

int nvmlDeviceSetPowerManagementLimit(void *device, unsigned int mw)
{
    (void)device;
    if (mw < 200000 || mw > 700000) return INVALID_ARGUMENT;
    if (geteuid() != 0) return NO_PERMISSION;
    limit_mw = mw;
    return SUCCESS;
}
