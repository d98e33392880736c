import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import petclf.LastFirst;

/** Jobs from many, to many who take batches, and some of whom are interrupted: every job is done, once. */
public class LastFirstStress {
    static final int JOBS = 200_000;
    static final int PRODUCERS = 3;
    static final int CONSUMERS = 5;

    public static void main(String[] args) throws Exception {
        order();
        for (int time = 0; time < 3000; time++) {
            stoppedWhileCalled();
        }
        everything();
        System.out.println("every job was done once");
    }

    static void order() throws Exception {
        LastFirst<String> queue = new LastFirst<>(10);
        Map<String, String> got = new ConcurrentHashMap<>();
        CountDownLatch done = new CountDownLatch(3);
        Thread[] waiting = new Thread[3];
        for (int index = 0; index < 3; index++) {
            String name = "worker " + index;
            waiting[index] = new Thread(() -> {
                try {
                    got.put(name, queue.poll(Long.MAX_VALUE, TimeUnit.MILLISECONDS));
                } catch (InterruptedException stopped) {
                    got.put(name, "stopped");
                }
                done.countDown();
            });
            waiting[index].start();
            while (waiting[index].getState() != Thread.State.TIMED_WAITING) {
                Thread.sleep(1);
            }
        }
        queue.offer("first job");
        while (!got.containsKey("worker 2")) {
            Thread.sleep(1);
        }
        waiting[1].interrupt();
        while (!got.containsKey("worker 1")) {
            Thread.sleep(1);
        }
        queue.addFirst("second job");
        done.await();
        expect(Map.of("worker 2", "first job", "worker 1", "stopped", "worker 0", "second job").equals(got), got.toString());
        long since = System.nanoTime();
        expect(queue.poll(30, TimeUnit.MILLISECONDS) == null, "a job out of nothing");
        expect(System.nanoTime() - since >= 29_000_000, "it did not wait");
        expect(queue.poll(0, TimeUnit.MILLISECONDS) == null, "a job out of nothing");
    }

    /** Of two who wait, the one who is called is stopped in the same moment: the other one must get the job. */
    static void stoppedWhileCalled() throws Exception {
        LastFirst<String> queue = new LastFirst<>(10);
        CountDownLatch taken = new CountDownLatch(1);
        Thread[] waiting = new Thread[2];
        for (int index = 0; index < 2; index++) {
            waiting[index] = new Thread(() -> {
                try {
                    queue.poll(Long.MAX_VALUE, TimeUnit.MILLISECONDS);
                    taken.countDown();
                } catch (InterruptedException stopped) {
                    return;
                }
            });
            waiting[index].setDaemon(true);
            waiting[index].start();
            while (waiting[index].getState() != Thread.State.TIMED_WAITING) {
                Thread.onSpinWait();
            }
        }
        queue.offer("job");
        waiting[1].interrupt();
        expect(taken.await(5, TimeUnit.SECONDS), "a job is left lying while somebody waits");
        waiting[0].interrupt();
    }

    static void everything() throws Exception {
        LastFirst<Integer> queue = new LastFirst<>(100);
        AtomicInteger[] times = new AtomicInteger[JOBS];
        for (int index = 0; index < JOBS; index++) {
            times[index] = new AtomicInteger();
        }
        CountDownLatch left = new CountDownLatch(JOBS);
        Thread[] consumers = new Thread[CONSUMERS];
        for (int index = 0; index < CONSUMERS; index++) {
            consumers[index] = new Thread(() -> {
                while (left.getCount() > 0) {
                    try {
                        Integer job = queue.poll(Long.MAX_VALUE, TimeUnit.MILLISECONDS);
                        for (int more = 0; job != null && more < 8; more++) {
                            times[job].incrementAndGet();
                            left.countDown();
                            job = queue.poll(0, TimeUnit.MILLISECONDS);
                        }
                        if (job != null) {
                            queue.addFirst(job);
                        }
                    } catch (InterruptedException stopped) {
                        Thread.yield();
                    } catch (IllegalStateException full) {
                        throw new AssertionError("the queue is full where it cannot be", full);
                    }
                }
            });
            consumers[index].setDaemon(true);
            consumers[index].start();
        }
        AtomicInteger next = new AtomicInteger();
        for (int index = 0; index < PRODUCERS; index++) {
            Thread producer = new Thread(() -> {
                for (int job = next.getAndIncrement(); job < JOBS; job = next.getAndIncrement()) {
                    while (queue.size() > 80 || !queue.offer(job)) { // room for what consumers put back
                        Thread.yield();
                    }
                }
            });
            producer.setDaemon(true);
            producer.start();
        }
        Random random = new Random(1);
        while (!left.await(1, TimeUnit.MILLISECONDS)) {
            consumers[random.nextInt(CONSUMERS)].interrupt();
        }
        for (AtomicInteger count : times) {
            expect(count.get() == 1, "a job was done " + count + " times");
        }
    }

    static void expect(boolean held, String otherwise) {
        if (!held) {
            throw new AssertionError(otherwise);
        }
    }
}
