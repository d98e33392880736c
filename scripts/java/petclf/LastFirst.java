package petclf;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.LinkedBlockingDeque;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/**
 * A queue that hands the next job to whoever began to wait last: to the worker whose data the processor still holds.
 *
 * <p>A job is put in before the lock is taken, and looked for while it is held: whoever finds none has taken its place among the
 * waiting before the next job can call, so no job is left lying while somebody waits. Only what is put in by `offer` and `addFirst`,
 * as TorchServe does, calls anybody. docs/decisions/0008-last-come-first-served.md
 */
public final class LastFirst<E> extends LinkedBlockingDeque<E> {
    private static final long serialVersionUID = 1L;

    private final transient Deque<Semaphore> waiting = new ArrayDeque<>();

    public LastFirst(int capacity) {
        super(capacity);
    }

    @Override
    public boolean offerFirst(E job) {
        return super.offerFirst(job) && wakeLast();
    }

    @Override
    public boolean offerLast(E job) {
        return super.offerLast(job) && wakeLast();
    }

    @Override
    public E poll(long time, TimeUnit unit) throws InterruptedException {
        long left = unit.toNanos(time);
        while (true) {
            Semaphore turn = new Semaphore(0);
            synchronized (waiting) {
                E job = super.poll();
                if (job != null || left <= 0) {
                    return job;
                }
                waiting.addLast(turn);
            }
            long since = System.nanoTime();
            try {
                if (!turn.tryAcquire(left, TimeUnit.NANOSECONDS)) {
                    leave(turn);
                }
            } catch (InterruptedException stopped) {
                leave(turn);
                throw stopped;
            }
            left -= System.nanoTime() - since;
        }
    }

    /** Wait no longer; a turn that came in the same moment goes to the next. */
    private void leave(Semaphore turn) {
        synchronized (waiting) {
            if (!waiting.remove(turn)) {
                wakeLast();
            }
        }
    }

    /** Call the one who came last, if anybody waits; that one looks again, for a passer-by may have taken the job. */
    private boolean wakeLast() {
        synchronized (waiting) {
            Semaphore last = waiting.pollLast();
            if (last != null) {
                last.release();
            }
            return true;
        }
    }
}
