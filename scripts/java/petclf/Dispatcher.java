package petclf;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.LinkedBlockingDeque;
import org.pytorch.serve.job.Job;
import org.pytorch.serve.util.messages.WorkerCommands;

/**
 * A model's waiting jobs, and the workers that have nothing to do: whoever brings either hands over what can be handed over.
 *
 * <p>A batch is a fair share of what waits, up to its most, and waits for nothing (docs/decisions/0011-a-fair-share.md). The
 * worker that was busy last gets it, for the processor still holds its data (0008-last-come-first-served.md). No thread waits here:
 * the one that has read a request sends it to the worker (0010-one-thread-for-photos.md). Only what is put in by `offer` and
 * `addFirst`, as TorchServe does, is handed over.
 */
public final class Dispatcher extends LinkedBlockingDeque<Job> {
    private static final long serialVersionUID = 1L;

    /** Somebody who takes batches: one at a time, and says `isFree` when there may be another. */
    public interface Taker {
        int most();

        /** Begin this batch; false if this taker has ended meanwhile. */
        boolean take(List<Job> batch);
    }

    private final transient Deque<Taker> free = new ArrayDeque<>(); // guarded by itself, as is the next
    private final transient Set<Taker> takers = new HashSet<>(); // the busy ones too
    private volatile boolean closed;

    public Dispatcher(int capacity) {
        super(capacity);
    }

    @Override
    public boolean offerFirst(Job job) {
        return super.offerFirst(job) && handOver();
    }

    @Override
    public boolean offerLast(Job job) {
        return super.offerLast(job) && handOver();
    }

    /** Note that this one has nothing to do, and give it what waits. */
    public void isFree(Taker taker) {
        synchronized (free) {
            closed = false;
            takers.add(taker);
            free.remove(taker);
            free.addLast(taker);
        }
        handOver();
    }

    /** Give this one nothing more. */
    public void hasEnded(Taker taker) {
        synchronized (free) {
            takers.remove(taker);
            free.remove(taker);
        }
    }

    /** Refuse what waits, and what still comes, until there is a taker again. */
    public void close() {
        closed = true;
        handOver();
    }

    /** Take a batch back that was not answered: it comes first, in its order. */
    public void takeBack(List<Job> batch) {
        for (int last = batch.size() - 1; last >= 0; last--) {
            putBack(batch.get(last));
        }
        handOver();
    }

    /** Put a job first, or refuse it: others may have taken its room meanwhile. */
    private void putBack(Job job) {
        if (!super.offerFirst(job)) {
            job.sendError(503, "Too many requests wait.");
        }
    }

    /** Bring jobs and takers together for as long as there are both; returns true, for `offer`. */
    private boolean handOver() {
        for (Job job; closed && (job = poll()) != null; ) {
            job.sendError(503, "The model has no worker any more.");
        }
        while (true) {
            Taker taker;
            List<Job> batch;
            synchronized (free) { // a job is put in before, and a taker within: none of both can be overlooked
                taker = free.peekLast();
                if (taker == null || (batch = nextBatch(taker.most())).isEmpty()) {
                    return true;
                }
                free.removeLast();
            }
            if (!taker.take(batch)) {
                takeBack(batch);
            }
        }
    }

    /** Return one taker's share of what waits: the others are free soon, and a photo waits for those before it in its batch. */
    private List<Job> nextBatch(int most) {
        int share = Math.min(most, (size() + takers.size() - 1) / takers.size());
        List<Job> batch = new ArrayList<>(share);
        for (Job job; batch.size() < share && (job = poll()) != null; ) {
            if (job.getPayload().getClientExpireTS() <= System.currentTimeMillis()) {
                continue; // nobody listens any more
            }
            boolean forItself = job.getCmd() == WorkerCommands.DESCRIBE;
            if (forItself && !batch.isEmpty()) {
                putBack(job);
                break;
            }
            batch.add(job);
            if (forItself) {
                break;
            }
        }
        return batch;
    }
}
