import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.pytorch.serve.job.Job;
import org.pytorch.serve.util.messages.RequestInput;
import org.pytorch.serve.util.messages.WorkerCommands;
import petclf.Dispatcher;

/** Who gets which batch, one step after the other; then jobs from many, for many who come and go: every job is done, once. */
public class DispatcherStress {
    static final int JOBS = 200_000;
    static final int PRODUCERS = 3;
    static final int WORKERS = 5;

    public static void main(String[] args) throws Exception {
        theOneThatWasBusyLastIsNext();
        whatWaitsIsOneBatch();
        eachTakesItsShareOfWhatWaits();
        aQuestionAboutTheModelGoesAlone();
        whatNobodyListensToIsLeftOut();
        whatAnEndedOneCannotTakeGoesToAnother();
        whatIsTakenBackComesFirstAndIsRefusedWithoutRoom();
        whenNobodyWillComeAllIsRefusedUntilSomebodyComes();
        everything();
        System.out.println("every job was done once");
    }

    static class Photo extends Job {
        final AtomicInteger times = new AtomicInteger();
        volatile int refused;

        Photo(int number, WorkerCommands command) {
            super("model", "1", command, new RequestInput("" + number));
        }

        Photo(int number) {
            this(number, WorkerCommands.PREDICT);
        }

        @Override
        public void response(byte[] body, CharSequence type, int status, String phrase, Map<String, String> headers) {
            times.incrementAndGet();
        }

        @Override
        public void sendError(int status, String error) {
            refused = status;
        }

        @Override
        public boolean isOpen() {
            return true;
        }
    }

    /** Notes what it is given. */
    static class Worker implements Dispatcher.Taker {
        final List<List<String>> got = new ArrayList<>();
        boolean ended;

        @Override
        public int most() {
            return 4;
        }

        @Override
        public boolean take(List<Job> batch) {
            if (!ended) {
                got.add(batch.stream().map(Job::getJobId).toList());
            }
            return !ended;
        }
    }

    static void theOneThatWasBusyLastIsNext() {
        Dispatcher dispatcher = new Dispatcher(10);
        Worker one = new Worker(), two = new Worker(), three = new Worker();
        List.of(one, two, three).forEach(dispatcher::isFree);
        dispatcher.offer(new Photo(1));
        dispatcher.isFree(three);
        dispatcher.offer(new Photo(2));
        dispatcher.offer(new Photo(3));
        dispatcher.hasEnded(one);
        dispatcher.offer(new Photo(4));
        dispatcher.isFree(one);
        expect(List.of(List.of("4")), one.got);
        expect(List.of(List.of("3")), two.got);
        expect(List.of(List.of("1"), List.of("2")), three.got);
    }

    static void whatWaitsIsOneBatch() {
        Dispatcher dispatcher = new Dispatcher(5);
        for (int number = 1; number <= 5; number++) {
            expect(true, dispatcher.offer(new Photo(number)));
        }
        expect(false, dispatcher.offer(new Photo(6)));
        Worker worker = new Worker();
        dispatcher.isFree(worker);
        dispatcher.isFree(worker);
        expect(List.of(List.of("1", "2", "3", "4"), List.of("5")), worker.got);
    }

    static void eachTakesItsShareOfWhatWaits() {
        Dispatcher dispatcher = new Dispatcher(20);
        Worker one = new Worker(), two = new Worker();
        List.of(one, two).forEach(dispatcher::isFree);
        for (int number = 1; number <= 13; number++) {
            dispatcher.offer(new Photo(number));
        }
        dispatcher.isFree(one); // of eleven no more than four
        dispatcher.isFree(two); // of seven four
        dispatcher.isFree(one); // of three two
        dispatcher.offer(new Photo(14));
        dispatcher.hasEnded(two);
        dispatcher.isFree(one); // all that is left
        expect(List.of(List.of("2"), List.of("3", "4", "5", "6"), List.of("11", "12"), List.of("13", "14")), one.got);
        expect(List.of(List.of("1"), List.of("7", "8", "9", "10")), two.got);
    }

    static void aQuestionAboutTheModelGoesAlone() {
        Dispatcher dispatcher = new Dispatcher(5);
        dispatcher.offer(new Photo(1));
        dispatcher.offer(new Photo(2, WorkerCommands.DESCRIBE));
        dispatcher.offer(new Photo(3));
        Worker worker = new Worker();
        for (int time = 0; time < 3; time++) {
            dispatcher.isFree(worker);
        }
        expect(List.of(List.of("1"), List.of("2"), List.of("3")), worker.got);
    }

    static void whatNobodyListensToIsLeftOut() throws Exception {
        Dispatcher dispatcher = new Dispatcher(5);
        Photo late = new Photo(1, WorkerCommands.DESCRIBE);
        late.getPayload().setClientExpireTS(1);
        Thread.sleep(5);
        dispatcher.offer(late);
        dispatcher.offer(new Photo(2));
        Worker worker = new Worker();
        dispatcher.isFree(worker);
        expect(List.of(List.of("2")), worker.got);
    }

    static void whatAnEndedOneCannotTakeGoesToAnother() {
        Dispatcher dispatcher = new Dispatcher(5);
        Worker one = new Worker(), ended = new Worker();
        dispatcher.isFree(one);
        dispatcher.isFree(ended);
        ended.ended = true;
        dispatcher.offer(new Photo(1));
        expect(List.of(List.of("1")), one.got);
    }

    static void whatIsTakenBackComesFirstAndIsRefusedWithoutRoom() {
        Dispatcher dispatcher = new Dispatcher(3);
        dispatcher.offer(new Photo(4));
        Photo first = new Photo(1);
        dispatcher.takeBack(List.of(first, new Photo(2), new Photo(3)));
        Worker worker = new Worker();
        dispatcher.isFree(worker);
        expect(List.of(List.of("2", "3", "4")), worker.got);
        expect(503, first.refused);
    }

    static void whenNobodyWillComeAllIsRefusedUntilSomebodyComes() {
        Dispatcher dispatcher = new Dispatcher(3);
        List<Photo> photos = List.of(new Photo(1), new Photo(2), new Photo(3), new Photo(4), new Photo(5));
        dispatcher.offer(photos.get(0));
        dispatcher.close();
        dispatcher.offer(photos.get(1));
        dispatcher.takeBack(List.of(photos.get(2), photos.get(3)));
        Worker worker = new Worker();
        dispatcher.isFree(worker);
        dispatcher.offer(photos.get(4));
        expect(List.of(List.of("5")), worker.got);
        expect(List.of(503, 503, 503, 503, 0), photos.stream().map(photo -> photo.refused).toList());
    }

    /** Answers batches on a thread of its own; now and then it ends with a batch in hand, or between two, and comes again. */
    static class Passing extends Thread implements Dispatcher.Taker {
        final Dispatcher dispatcher;
        final CountDownLatch left;
        final BlockingQueue<List<Job>> hand = new LinkedBlockingQueue<>();
        final Random random;
        boolean here;
        boolean busy;

        Passing(Dispatcher dispatcher, CountDownLatch left, int seed) {
            this.dispatcher = dispatcher;
            this.left = left;
            random = new Random(seed);
            setDaemon(true);
        }

        @Override
        public int most() {
            return 4;
        }

        @Override
        public synchronized boolean take(List<Job> batch) {
            if (!here || busy) {
                return false;
            }
            busy = true;
            return hand.add(batch);
        }

        synchronized boolean is(boolean present) {
            here = present;
            boolean was = busy;
            busy = false;
            return was;
        }

        @Override
        public void run() {
            try {
                while (left.getCount() > 0) {
                    is(true);
                    dispatcher.isFree(this);
                    List<Job> batch;
                    while ((batch = hand.poll(random.nextInt(50), TimeUnit.MICROSECONDS)) != null && random.nextInt(20) > 0) {
                        for (Job job : batch) {
                            job.response(null, null, 200, null, null);
                            left.countDown();
                        }
                        is(true);
                        dispatcher.isFree(this);
                    }
                    boolean caught = is(false);
                    dispatcher.hasEnded(this);
                    if (caught) {
                        dispatcher.takeBack(batch == null ? hand.take() : batch);
                    }
                }
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
            }
        }
    }

    static void everything() throws Exception {
        Dispatcher dispatcher = new Dispatcher(100);
        Photo[] photos = new Photo[JOBS];
        for (int number = 0; number < JOBS; number++) {
            photos[number] = new Photo(number);
        }
        CountDownLatch left = new CountDownLatch(JOBS);
        for (int number = 0; number < WORKERS; number++) {
            new Passing(dispatcher, left, number).start();
        }
        AtomicInteger next = new AtomicInteger();
        for (int index = 0; index < PRODUCERS; index++) {
            Thread producer = new Thread(() -> {
                for (int number = next.getAndIncrement(); number < JOBS; number = next.getAndIncrement()) {
                    while (dispatcher.size() > 70 || !dispatcher.offer(photos[number])) { // room for what is taken back
                        Thread.yield();
                    }
                }
            });
            producer.setDaemon(true);
            producer.start();
        }
        if (!left.await(50, TimeUnit.SECONDS)) {
            throw new AssertionError(left.getCount() + " jobs are left lying");
        }
        for (Photo photo : photos) {
            expect(1, photo.times.get());
        }
    }

    static void expect(Object wanted, Object found) {
        if (!wanted.equals(found)) {
            throw new AssertionError("wanted " + wanted + ", found " + found);
        }
    }
}
