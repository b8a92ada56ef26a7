// Runs a program and kills it when its main thread enters its k-th system call: killer K PROGRAM ARGS...
// The last line of stderr says how many calls there were until then, or until the end. Exits with 3 where the system
// lets no program trace another.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    long last = atol(argv[1]), calls = 0;
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) _exit(3);
        execv(argv[2], argv + 2);
        _exit(3);
    }
    int status, is_inside = 0;
    // The first stop is that of execv.
    if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status)) return 3;
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    for (long signal = 0;;) {
        if (ptrace(PTRACE_SYSCALL, child, 0, signal) != 0) break;
        if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status)) break;
        signal = 0;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
            signal = WSTOPSIG(status);
            continue;
        }
        is_inside = !is_inside;
        if (is_inside && ++calls == last) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            break;
        }
    }
    fprintf(stderr, "\n%ld calls\n", calls);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
