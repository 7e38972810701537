// The visitor's camera: pictures as JPEG, as many a second as the model takes, never mirrored.
const SIDE = 640; // pixels at most

export class Camera {
  constructor(send, ready, complain) {
    Object.assign(this, { send, ready, complain, fps: 0, skipped: 0, busy: false, canvas: document.createElement("canvas") });
    this.video = document.querySelector("#camera");
  }
  get on() { return this.fps > 0; }
  async start(fps) {
    if (this.on) { this.fps = fps; return; }
    this.fps = fps;
    try {
      if (!navigator.mediaDevices) throw new Error("a browser gives its camera to https pages and to localhost only");
      const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: { ideal: "environment" } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      this.fps = 0;
      this.complain(`No camera: ${error.message}`);
      return;
    }
    if (!this.on) return this.release(); // stopped while the visitor was asked
    this.video.srcObject = this.stream;
    await this.video.play();
    this.next = performance.now();
    this.tick();
  }
  stop() {
    this.fps = 0;
    clearTimeout(this.timer);
    this.release();
  }
  release() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
  }
  tick() {
    if (!this.on) return;
    const now = performance.now();
    this.next = Math.max(this.next + 1000 / this.fps, now - 1000);
    this.timer = setTimeout(() => this.tick(), Math.max(0, this.next - now));
    if (this.busy || !this.ready() || !this.video.videoWidth) { this.skipped += 1; return; }
    this.busy = true;
    this.take().finally(() => { this.busy = false; });
  }
  async take() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const scale = Math.min(1, SIDE / Math.max(width, height));
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== w || this.canvas.height !== h) Object.assign(this.canvas, { width: w, height: h });
    const taken = Date.now() / 1000;
    this.canvas.getContext("2d").drawImage(this.video, 0, 0, w, h);
    const blob = await new Promise((done) => this.canvas.toBlob(done, "image/jpeg", 0.85));
    if (blob && this.on && this.ready()) this.send(taken, await blob.arrayBuffer());
  }
}
