/* The first process of a workspace:  workspace-init PROGRAM [ARGUMENT...]
 *
 * It starts PROGRAM, hands signals on to it, takes away every process that ends without a parent, and ends as PROGRAM ends:
 * what any small init does. And it stands between the workspace and the engine's log. Whoever writes into that log has the
 * engine work for them, as much as a whole processor, so nobody gets hold of the descriptors that lead there: they are this
 * process's alone, which the kernel lets nobody of the same user look into (it is not dumpable), and all others write into
 * pipes. Of those it passes on BURST bytes at once and RATE bytes a second, and says how much it left out. It always
 * reads, so nobody who writes is held up for longer than PATIENCE.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BURST = 256 * 1024, /* an editor that starts writes about 3 KB */
    RATE = 8 * 1024,    /* a second */
    PART = 4096,        /* no more than PIPE_BUF: a pipe that is ready takes it without waiting */
    PATIENCE = 500,     /* milliseconds for an engine that is slow to read; none for one that was slow the last time */
    LINE = 64,          /* what a line costs besides its bytes: the engine writes as much about it */
    NOTE_EVERY = 10,    /* seconds between two notes about what was left out */
    EVERY = 5000,       /* milliseconds between two looks when nothing happens */
    AT_ONCE = 64,       /* signals and ended processes in one go: those who send them must not have all the time */
    CANNOT_RUN = 127,
};

struct stream {
    int from, to;
    bool torn;  /* what was passed on last did not end a line */
    bool stuck; /* the engine did not take it the last time */
};

static double tokens = BURST;
static double filled_at;
static unsigned long long left_out;
static double noted_at = -NOTE_EVERY;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    dprintf(STDERR_FILENO, "workspace-init: %s: %s\n", what, strerror(errno));
    _exit(CANNOT_RUN);
}

/* Whether the engine takes something: one that does not read must not hold up the workspace. */
static bool ready(struct stream *stream) {
    struct pollfd one = {.fd = stream->to, .events = POLLOUT};
    stream->stuck = !(poll(&one, 1, stream->stuck ? 0 : PATIENCE) == 1 && (one.revents & POLLOUT));
    return !stream->stuck;
}

/* How much was not taken: all that is left, where nobody reads any more. The workspace goes on. */
static size_t put(int fd, const char *text, size_t length) {
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0) {
            if (errno == EINTR) continue;
            break;
        }
        text += written;
        length -= (size_t)written;
    }
    return length;
}

static void note_what_is_missing(struct stream *stream) {
    char text[128];
    if (left_out == 0 || !ready(stream)) return;
    int length = snprintf(text, sizeof text, "%sworkspace: %llu bytes of output were left out of this log\n",
                          stream->torn ? "\n" : "", left_out);
    size_t missing = put(stream->to, text, (size_t)length);
    stream->torn = missing > 0 && (stream->torn || missing < (size_t)length);
    if (missing > 0) return;
    left_out = 0;
    noted_at = now();
}

/* Read once what there is, and pass on as much as may be. False at the end of the pipe, or when nothing is there. */
static bool pass(struct stream *stream) {
    char part[PART];
    ssize_t got = read(stream->from, part, sizeof part);
    if (got <= 0) return got < 0 && errno == EINTR;
    double moment = now();
    tokens += (moment - filled_at) * RATE;
    if (tokens > BURST) tokens = BURST;
    filled_at = moment;
    if (moment - noted_at >= NOTE_EVERY) note_what_is_missing(stream);
    double cost = (double)got;
    for (ssize_t i = 0; i < got; i++) cost += part[i] == '\n' ? LINE : 0;
    if (tokens < cost || !ready(stream)) {
        left_out += (unsigned long long)got;
        return true;
    }
    left_out += put(stream->to, part, (size_t)got);
    tokens -= cost;
    stream->torn = part[got - 1] != '\n';
    return true;
}

static void take_over(struct stream *stream, int ends[2]) {
    if (pipe2(ends, O_CLOEXEC) < 0) fail("no pipe");
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) fail("no pipe");
    stream->from = ends[0];
    if (fcntl(stream->to, F_SETFD, FD_CLOEXEC) < 0) fail("no output");
}

/* The program's own process: writes into the pipes, and hears all signals. */
static void become(char *argv[], int out, int err, const sigset_t *before) {
    if (setsid() < 0 && errno != EPERM) fail("no session");
    sigprocmask(SIG_SETMASK, before, NULL);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0) fail("no output");
    execvp(argv[0], argv);
    fail(argv[0]);
}

/* Take away whoever has ended; true once that was the program itself. */
static bool reap(pid_t program, int *status) {
    bool over = false;
    for (int each = 0; each < AT_ONCE; each++) {
        int how;
        pid_t gone = waitpid(-1, &how, WNOHANG);
        if (gone <= 0) return over;
        if (gone == program) {
            over = true;
            *status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
        }
    }
    return over;
}

static void hand_on(int signals, pid_t program) {
    struct signalfd_siginfo info;
    for (int each = 0; each < AT_ONCE && read(signals, &info, sizeof info) == (ssize_t)sizeof info; each++) {
        if (info.ssi_signo != SIGCHLD) kill(program, (int)info.ssi_signo);
    }
}

int main(int argc, char *argv[]) {
    struct stream out = {.to = STDOUT_FILENO}, err = {.to = STDERR_FILENO};
    int out_ends[2], err_ends[2], status = CANNOT_RUN;
    sigset_t all, before;

    if (argc < 2) {
        dprintf(STDERR_FILENO, "usage: workspace-init PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    if (prctl(PR_SET_DUMPABLE, 0) < 0) fail("not closed to others");
    signal(SIGPIPE, SIG_IGN);
    sigfillset(&all);
    /* Signals of its own faults are not for others; how a terminal stops its jobs is not for an init. */
    const int own[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGPIPE, SIGTTIN, SIGTTOU, SIGTSTP};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&all, own[i]);
    if (sigprocmask(SIG_BLOCK, &all, &before) < 0) fail("no signals");
    int signals = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals < 0) fail("no signals");
    filled_at = now();
    take_over(&out, out_ends);
    take_over(&err, err_ends);

    pid_t program = fork();
    if (program < 0) fail("no process");
    if (program == 0) {
        signal(SIGPIPE, SIG_DFL);
        become(argv + 1, out_ends[1], err_ends[1], &before);
    }
    close(out_ends[1]);
    close(err_ends[1]);

    struct pollfd all_of_it[] = {
        {.fd = signals, .events = POLLIN}, {.fd = out.from, .events = POLLIN}, {.fd = err.from, .events = POLLIN}};
    struct stream *streams[] = {NULL, &out, &err};
    for (;;) {
        if (poll(all_of_it, 3, EVERY) < 0 && errno != EINTR) fail("no waiting");
        hand_on(signals, program);
        if (reap(program, &status)) break;
        if (now() - noted_at >= NOTE_EVERY) note_what_is_missing(&err);
        for (int i = 1; i < 3; i++) {
            if (!(all_of_it[i].revents)) continue;
            if (!pass(streams[i]) && !(all_of_it[i].revents & POLLIN)) all_of_it[i].fd = -1; /* closed by all writers */
        }
    }
    /* What it said last, of which there is no more than a pipe holds; whoever is left behind writes into nothing. */
    for (int i = 1; i < 3; i++) {
        for (int parts = 0; parts < 64 && pass(streams[i]); parts++) continue;
    }
    note_what_is_missing(&err);
    return status;
}
